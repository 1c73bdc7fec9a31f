# make help lists what there is to make.

PYTHON  ?= python3
BIN     := .venv/bin
READY   := .venv/.ready
WORKERS ?= 2
SOURCES := $(wildcard kaivc tests scripts examples)

.DEFAULT_GOAL := help
.PHONY: help demo test faults check format format-check lint types architecture reference torture bench bench-quick lock \
        tools clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

# The environment: what the lock says, and kaivc itself, editable.
$(READY): pyproject.toml requirements/dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY)  ## show what kai does, from a new agent to a rollback
	$(BIN)/python scripts/demo.py

test: $(READY)  ## run the test suite with coverage
	$(BIN)/python -m pytest -n $(WORKERS) --ignore tests/faults --cov --cov-report=term-missing:skip-covered

faults: $(READY)  ## cut the power, fail the disk, kill, rot and fuzz: a tenth of what `make torture` does
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/faults

check: format-check lint types architecture test faults  ## everything that CI checks
	$(BIN)/python scripts/coverage_floor.py

format: $(READY)  ## format the sources, and fix what lint can fix
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

format-check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(READY)  ## ruff
	$(BIN)/ruff check $(SOURCES)

types: $(READY)  ## mypy
	$(BIN)/mypy

architecture: $(READY)  ## the floors: who may import whom, and who may write
	$(BIN)/python -m pytest tests/architecture

reference: $(READY)  ## write docs/reference anew from the commands, their schemas and the errors
	$(BIN)/python -m tests.cli.reference
	$(BIN)/python -m tests.cli.words

torture: $(READY)  ## the long tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

bench: $(READY)  ## measure kaivc beside its peers (an hour or more), and write docs/benchmarks
	scripts/bench/install-peers
	$(BIN)/python -m scripts.bench $(BENCH)

bench-quick: $(READY)  ## the same with small workloads, within three minutes, into .bench/quick
	$(BIN)/python -m scripts.bench --quick $(BENCH)

lock:  ## make requirements/dev.txt again from pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/pip-compile || $(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --extra dev \
	    --generate-hashes --allow-unsafe --strip-extras --no-annotate \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --output-file requirements/dev.txt pyproject.toml

tools:  ## install what the tests run beside Python packages
	scripts/install-test-tools

clean:  ## remove what the other targets made, and .venv
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist htmlcov .coverage .coverage.* coverage.json
	find kaivc tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
