# Each target sets up all it needs, once, in a private .venv; a machine needs Python >= 3.10 with pip, nothing else.
# Variables: PYTHON (which Python), PIP_FLAGS (for pip install), JOBS (test processes), ARGS (passed on).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
PIP_FLAGS ?=
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# The stamps lie inside the environment, so that they go when it goes. A failed install leaves none.
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip before 25.1 does not know dependency groups.
PIP_NEEDED := pip>=25.1

.PHONY: help quickstart test wheel docs shown lint format clean distclean

help: ## Show this help
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  e.g. make test ARGS="tests/spec -x" JOBS=4      make quickstart PYTHON=python3.12'
	@echo '       make quickstart PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"   (torch without CUDA)'

quickstart: $(STAMP)-run ## Real parts, real data: train, evaluate and report, in minutes
	$(BIN)/vlkit quickstart --overwrite $(ARGS)

test: $(STAMP)-test ## Run the tests
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

wheel: $(STAMP)-test $(STAMP)-lint ## Build wheel and source archive into dist, and try the wheel in a clean environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	VLKIT_DIST=dist $(BIN)/python -m pytest -n 0 tests/test_wheel.py $(ARGS)

docs: $(STAMP)-docs ## Build the docs site into site; make docs ARGS=serve shows it while pages change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build --strict)

shown: $(STAMP)-test ## Check that the answers shown in README are those of the quickstart's model
	$(BIN)/python -m pytest -n 0 tests/docs -k answers_shown

lint: $(STAMP)-lint ## Check style, types, import layers, sizes and seams
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/check_size.py
	$(BIN)/python tools/check_seams.py

format: $(STAMP)-lint ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove caches and build output
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove the environment as well
	rm -rf $(VENV)

# A Python without ensurepip (Debian's, without python3-venv) makes the environment with its own pip.
$(STAMP)-venv:
	@command -v '$(PYTHON)' >/dev/null || { echo "no '$(PYTHON)' on this machine; install Python >= 3.10, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "vlkit needs Python >= 3.10, '$(PYTHON)' is $$('$(PYTHON)' -V 2>&1); name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV) with $$('$(PYTHON)' -V)"
	@'$(PYTHON)' -m venv $(VENV) >/dev/null || { '$(PYTHON)' -m venv --clear --without-pip $(VENV) && '$(PYTHON)' -m pip --python $(BIN)/python install pip; }
	$(PIP) install --quiet '$(PIP_NEEDED)'
	@touch $@

$(STAMP)-run: pyproject.toml $(STAMP)-venv
	@echo "installing vlkit and what it needs (a few minutes, once)"
	$(PIP) install --quiet $(PIP_FLAGS) --editable '.[quickstart]'
	@touch $@

$(STAMP)-test: $(STAMP)-run
	$(PIP) install --quiet $(PIP_FLAGS) --group test
	@touch $@

$(STAMP)-docs: $(STAMP)-run
	$(PIP) install --quiet $(PIP_FLAGS) --group docs
	@touch $@

$(STAMP)-lint: $(STAMP)-run
	$(PIP) install --quiet $(PIP_FLAGS) --group lint
	@touch $@
