# make demo    run the shipped FoPru + FastV pipeline in its own virtual environment
# make test    style, types, import rules and tests; test-all adds the slow ones
# make extras  install every extra (or EXTRAS='eval slurm') into an environment of its own and exercise it; needs the network
# Overridable: PYTHON (3.11 or newer), VENV, TORCH (a pip requirement, e.g. TORCH=torch==2.11.0), PYTEST_ARGS.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
EXTRAS ?=

BIN := $(VENV)/bin
# pip in the virtual environment, always under the tested versions, so that no call moves torch to another build.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c $(VENV)/constraints.txt
# The stamp carries the torch that was asked for: another TORCH installs anew.
KEY := $(shell printf '%s' '$(TORCH)' | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/.installed-$(KEY)
DEVELOP := $(VENV)/.develop-$(KEY)

.PHONY: demo install test test-all extras check lint format clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(BIN)/fopru-graph run pipelines/fopru_fastv.yaml

install: $(INSTALLED)

test: check
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-all: check
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

extras:
	$(PYTHON) tools/extras.py --torch '$(TORCH)' $(EXTRAS)

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
	@rm -f $(VENV)/.installed-* $(VENV)/.develop-*
	$(PYTHON) -m venv $(VENV)
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP_INSTALL) '$(TORCH)'
	@$(BIN)/python -m pip freeze | grep '^torch==' >> $(VENV)/constraints.txt || true
	$(PIP_INSTALL) --quiet -e .
	@touch $@

$(DEVELOP): $(INSTALLED)
	$(PIP_INSTALL) --quiet -e '.[dev]'
	@touch $@
