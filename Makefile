# The virtual environment that is active, else one in this folder.
VENV := $(or $(VIRTUAL_ENV),.venv)
PYTHON ?= python3
BIN := $(VENV)/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PYTHON_IMAGE := python:3.11-slim-bookworm
TORCH := torch>=2.13,<2.14
# Without buildx the engine's own builder does it.
BUILD = $(shell docker buildx version >/dev/null 2>&1 || echo DOCKER_BUILDKIT=0) docker build --quiet

.PHONY: demo test lint format clean images base-image

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

images: image-server-cpu image-client image-exporter image-models  ## Images that need no GPU

image-%: containers/%.Dockerfile | base-image
	$(BUILD) --file $< --tag galatea-$*:$(VERSION) .

image-models: | base-image $(VENV)/.galatea-demo
	@ls -d model_repository/*/ >/dev/null 2>&1 || $(MAKE) demo
	$(BUILD) --file containers/models.Dockerfile --tag galatea-models:$(VERSION) model_repository

# PyTorch as this machine's pip gets it, which must be for CPUs; see docs/containers.md.
image-exporter: containers/wheels/torch
containers/wheels/torch: | $(BIN)/python
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: \
		--python-version 3.11 --dest containers/wheels '$(TORCH)'
	touch $@

base-image:  ## What the images are based on; made from Debian's packages where no registry is reached
	@docker image inspect $(PYTHON_IMAGE) >/dev/null 2>&1 || docker pull $(PYTHON_IMAGE) \
		|| containers/base-without-registry.sh $(PYTHON_IMAGE)

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
