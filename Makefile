# `make help` explains itself. Everything runs from a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint bench clean

help:  ## Show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## Create the virtual environment and install everything, pinned

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(READY)  ## Edit small catalogs, each from one pair, and say where the reports are
	$(BIN)/python -m training.demo demo-output
	@for edit in background:products recolour:products add:products tone:photographs; do \
	  set -- $$(echo $$edit | tr ':' ' '); \
	  command="edit-transfer apply --pair demo-output/$${1}_before.png demo-output/$${1}_after.png --input demo-output/$$2 --output demo-output/edited/$$1"; \
	  echo "\n$$ $$command"; $(BIN)/$$command || exit $$?; \
	done

test: $(READY)  ## Run the tests (minutes, on two cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY)  ## Run the slow tests as well
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(READY)  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## Measure speed and memory as ratios within one run
	$(BIN)/python -m tests.benchmarks

clean:  ## Remove the virtual environment and everything generated
	rm -rf $(VENV) demo-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache
