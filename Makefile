# make demo    run the shipped FoPru + FastV pipeline in its own virtual environment
# make test    style, types, import rules and tests; test-all adds the slow ones and a browser's
# make extras  install every extra (or EXTRAS='eval slurm') into an environment of its own and exercise it; needs the network
# make gpu     on a machine with CUDA: the tests that need it, then the paper's tables in GPU_OUT; goes on where it was stopped
# Overridable: PYTHON (3.11 or newer), VENV, TORCH (a pip requirement, e.g. TORCH=torch==2.11.0), PYTEST_ARGS.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
EXTRAS ?=
GPU_OUT ?= fopru-bench/gpu

BIN := $(VENV)/bin
# pip in the virtual environment, always under the tested versions, so that no call moves torch to another build.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c $(VENV)/constraints.txt
# The stamp carries the torch that was asked for: another TORCH installs anew.
KEY := $(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/.installed-$(KEY)
DEVELOP := $(VENV)/.develop-$(KEY)
CANVAS := $(VENV)/.canvas-$(KEY)

.PHONY: demo install test test-all extras gpu gpu-measure check lint format clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/fopru-graph run pipelines/fopru_fastv.yaml

install: $(INSTALLED)

test: check
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-all: check $(CANVAS)
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

extras:
	$(PYTHON) tools/extras.py --torch '$(TORCH)' $(EXTRAS)

# In an environment of its own, with PyPI's newest torch (for Linux a CUDA build) unless TORCH names another.
gpu:
	@nvidia-smi -L || { echo "make gpu needs an NVIDIA GPU with its driver: 'nvidia-smi -L' finds none" >&2; exit 1; }
	@$(MAKE) gpu-measure VENV=$(VENV)-gpu TORCH='$(if $(filter file,$(origin TORCH)),torch,$(TORCH))'

# Tests that fail are told at the end; the tables are measured all the same.
gpu-measure: $(DEVELOP)
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
	  { echo "$$($(BIN)/python -m pip freeze | grep '^torch==') sees no CUDA device." \
	         "Name a build for this driver: make gpu TORCH=…" >&2; exit 1; }
	@mkdir -p $(GPU_OUT)
	@status=0; set -x; \
	$(BIN)/python -m pytest -m gpu -rs --junitxml=$(GPU_OUT)/tests.xml $(PYTEST_ARGS) || status=$$?; \
	$(BIN)/fopru-graph bench --paper --resume --device cuda --dtype bfloat16 --out $(GPU_OUT) || status=$$?; \
	exit $$status

check: $(DEVELOP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint: check

format: $(DEVELOP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# torch comes first and alone: the package asks for torch>=2.11, which pip then finds satisfied and leaves as it is.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "fopru-graph needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." \
	         "Name another one: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) with $(TORCH) (once; a few minutes)"
	@rm -f $(VENV)/.installed-* $(VENV)/.develop-* $(VENV)/.canvas-*
	$(PYTHON) -m venv $(VENV)
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP_INSTALL) '$(TORCH)'
	@$(BIN)/python -m pip freeze | grep '^torch==' >> $(VENV)/constraints.txt || true
	$(PIP_INSTALL) --quiet -e .
	@touch $@

$(DEVELOP): $(INSTALLED)
	$(PIP_INSTALL) --quiet -e '.[dev,docs]'
	@touch $@

# ComfyUI's frontend, which is GPL-3.0-only, and a browser for its tests; without Chromium they are skipped.
$(CANVAS): $(DEVELOP)
	$(PIP_INSTALL) --quiet -e '.[canvas-test]'
	@command -v chromium chromium-browser google-chrome >/dev/null || $(BIN)/playwright install chromium || \
	  echo "There is no Chromium, so the tests of the canvas are skipped." >&2
	@touch $@
