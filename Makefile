# The virtual environment that is active, else one in this folder.
VENV := $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo test lint format clean

demo: $(VENV)/.galatea-demo  ## Export, serve and sample the phantom generator; the picture is demo/grid.png
	$(BIN)/galatea demo

test: $(VENV)/.galatea-dev lint  ## Style, types and all tests
	$(BIN)/python -m pytest

lint: $(VENV)/.galatea-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.galatea-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist demo .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.galatea-demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[serve,export]'
	touch $@

$(VENV)/.galatea-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.galatea-demo
