# `make demo` and `make test` set up .venv by themselves from a bare Python ≥ 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Tests run in as many processes as there are cores.
JOBS ?= $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())")

.PHONY: demo test faults check format clean

demo: .venv/core
	$(BIN)/neocog train digits --val 0.2 --seed 0

test: .venv/dev
	$(BIN)/python -m pytest -q -n $(JOBS)

# Kills, full disks, power cuts, flipped bits, and the proof that each of these tests can fail.
faults: .venv/dev
	$(BIN)/python -m faults

check: .venv/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('neocog needs Python 3.11 or newer; this is ' + sys.version)"
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
