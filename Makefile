# Every target sets up its own environment on first use. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all bench lint clean

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

## demo: what-if on a generated day, pressed into an hour; a table, and the address of a page
demo: $(STAMP)
	@mkdir -p out
	$(BIN)/planner whatif --trace generate:daily,duration_s=3600,daily_period_s=3600,daily_peak_s=2100,seed=7 --rate-scale 10 \
	  --profile profiling_results/llama-3.1-8b-instruct-fp8 --ttft-ms 200 --itl-ms 10 --startup-s 30 \
	  --policy planner --policy static:3p3d..5p5d --policy hpa --policy dynamo-classic:constant --policy clairvoyant \
	  --report out/demo.html --journal out/demo.jsonl

## test: the quick suite
test: $(STAMP)
	$(BIN)/pytest

## test-all: the quick suite and everything slower
test-all: $(STAMP)
	$(BIN)/pytest tests/unit tests/property tests/integration

## bench: speed and memory, as figures
bench: $(STAMP)
	$(BIN)/python -m tests.bench.simulator
	$(BIN)/python -m tests.bench.memory
	$(BIN)/python -m tests.bench.tick
	$(BIN)/python -m tests.bench.capacity

## lint: style, types, layers
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
