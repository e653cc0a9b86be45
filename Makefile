# Everything a newcomer or a machine runs. `make demo` and `make test` work on a fresh machine with Python >= 3.11.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first of these that is new enough makes .venv; override with `make PYTHON=/path/to/python ...`.
PYTHON ?= python3.11 python3 python3.12 python3.13

# Parts of the demo set, one model each; also grass, gravel.
CATEGORIES ?= brick
DEMO := demo
SAVE := csv,maps,overlays

.PHONY: help install demo test test-slow lint docs clean

help:
	@echo "make demo       make a small data set, fit, score, evaluate; ends with the path of a report"
	@echo "make test       run the tests (make test-slow: those that take minutes)"
	@echo "make lint       ruff, pyright, import contracts"
	@echo "make docs       build the documentation into site/"
	@echo "make clean      remove what these made, but not .venv"

install: $(STAMP)

$(STAMP): pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for python in $(PYTHON); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV); break; \
	    fi; \
	  done; \
	  if [ ! -x $(BIN)/python ]; then echo "Python 3.11 or newer with its venv module is needed, none found among: $(PYTHON)" >&2; exit 1; fi; \
	fi
	@echo "installing anodiff and its tools into $(VENV); some minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# $(call timed,what,command): the command with its time.
define timed
	@echo "== $(1)"; start=$$SECONDS; $(2); echo "   $(1): $$((SECONDS - start)) s"
endef

demo: $(STAMP)
	@rm -rf $(DEMO)
	$(call timed,data,$(BIN)/anodiff data make-demo $(DEMO)/data $(CATEGORIES:%=--category %))
	$(call timed,fit,for c in $(CATEGORIES); do $(BIN)/anodiff fit $(DEMO)/data/$$c -o $(DEMO)/$$c; done)
	$(call timed,score,for c in $(CATEGORIES); do \
	  $(BIN)/anodiff score $(DEMO)/$$c/model.anodiff $(DEMO)/data/$$c/test -o $(DEMO)/$$c/scores --save $(SAVE); done)
	$(call timed,eval,for c in $(CATEGORIES); do \
	  $(BIN)/anodiff eval $(DEMO)/$$c/model.anodiff $(DEMO)/data/$$c -o $(DEMO)/$$c/eval; done)
	$(call timed,report,$(BIN)/anodiff report $(CATEGORIES:%=$(DEMO)/%/eval) -o $(DEMO)/report.html >/dev/null)
	@echo; echo "Open $(abspath $(DEMO))/report.html in a browser."

# One thread a worker: two workers that each take all cores only wait for each other.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test: $(STAMP)
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow --timeout 1200

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# pyright runs on node and gets its own package from the npm registry once; without it this fails, and says so
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports --no-logo

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(DEMO) site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find anodiff tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
