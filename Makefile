# `make help` explains itself. Everything runs from a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo picture test test-all lint bench clean

help:  ## Show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## Create the virtual environment and install everything, pinned

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(READY)  ## Edit small catalogs, each from one pair, and say where the reports are
	@$(BIN)/python -m training.demo demo-output
	@$(call say,apply --pair demo-output/pairs/recolour_before.png demo-output/pairs/recolour_after.png --input demo-output/products --output demo-output/recoloured --restore)
	@$(call say,apply --pair demo-output/pairs/background_before.png demo-output/pairs/background_after.png --input demo-output/catalog.csv --output demo-output/edited --restore)
	@$(BIN)/python -m training.demo demo-output --sheet

say = printf '\n$$ edit-transfer %s\n' '$(1)' && $(BIN)/edit-transfer $(1)

picture: demo  ## Make the picture of the README
	cp demo-output/sheet.png training/demo.png

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
