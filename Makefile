# Narrowgauge: `make run` serves, `make test` proves. Each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PORT ?= 8000
DATA_DIR ?= data
BACKEND ?= auto
OLLAMA_URL ?= http://127.0.0.1:11434

.PHONY: help setup run test test-fast check audit clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.developer  ## Make the virtual environment and install everything

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Narrowgauge needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What serving needs; testing adds the rest.
$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.developer: $(VENV)/.runtime
	$(PIP) -e '.[dev]'
	@touch $@

run: $(VENV)/.runtime  ## Serve on http://127.0.0.1:$(PORT) (Ollama if it answers, else real small models, else simulated)
	$(BIN)/python manage.py up --port $(PORT) --data-dir $(DATA_DIR) --backend $(BACKEND) --ollama-url $(OLLAMA_URL)

test: setup check  ## Everything: checks, unit, contract, acceptance, browser
	$(BIN)/python manage.py pull --quiet
	$(BIN)/python -m pytest

test-fast: setup  ## The everyday tests, under 90 seconds
	$(BIN)/python -m pytest -m 'not slow' -q

check: setup  ## ruff, mypy, import contracts, Django's own checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NARROWGAUGE_DATA_DIR=$$(mktemp -d) $(BIN)/python manage.py check
	NARROWGAUGE_DATA_DIR=$$(mktemp -d) $(BIN)/python manage.py makemigrations --check --dry-run

audit: setup  ## Known vulnerabilities of the pinned packages (says so when that cannot be asked)
	PATH="$(BIN):$$PATH" $(BIN)/python .ci/audit

clean:  ## Remove the virtual environment and caches (never your data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
