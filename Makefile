# circuitlab: every target makes the virtual environment it needs.
#   make demo       train the recurrent circuit on digits, by least control and by recurrent backprop, and draw both
#   make test       import floors, style, and every test that is not marked slow
#   make oracles    Brian2 and NEST, in an environment of their own, which some tests compare with
#   make test-slow  the whole training runs
#   make lint       import floors, style, types

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# One test process to a core, one thread to a process: many threads on few cores are slower.
WORKERS ?= 2
ORACLES := .oracles
PYTEST := OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: demo test oracles test-slow lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/run.stamp
	mkdir -p demo
	$(BIN)/circuitlab run experiments/recurrent_digits.yaml -o demo/recurrent_digits.h5 --overwrite
	$(BIN)/circuitlab run experiments/recurrent_digits.yaml --set learn.rule=recurrent_backprop -o demo/recurrent_digits_backprop.h5 --overwrite
	$(BIN)/circuitlab inspect demo/recurrent_digits.h5 --compare demo/recurrent_digits_backprop.h5 --plot demo/recurrent_digits.png

# Where they do not install, their tests are left out: scipy's integrator and theory are beside the same numbers.
test: $(VENV)/test.stamp
	-@$(MAKE) --no-print-directory oracles
	$(BIN)/lint-imports
	$(BIN)/ruff check .
	$(PYTEST) -m "not slow"

oracles: $(ORACLES)/stamp

test-slow: $(VENV)/test.stamp
	$(PYTEST) -m slow

lint: $(VENV)/test.stamp
	$(BIN)/lint-imports
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) $(ORACLES) demo build *.egg-info

# The first Python of at least 3.11 that can make a virtual environment; `make PYTHON=/path/to/python3 ...` chooses another.
$(VENV)/bin/python:
	@found=""; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
	  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "circuitlab needs Python 3.11 or later with its venv module; none was found on the PATH." >&2; \
	  echo "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$($$found --version), installing the libraries (the first time this takes some minutes)"; \
	$$found -m venv $(VENV)

# torch first and alone: it is by far the largest, and everything else then finds it in place.
$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e ".[all]"
	touch $@

$(ORACLES)/stamp: | $(VENV)/bin/python
	$(BIN)/python -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "brian2>=2.8" "numpy<2.4" setuptools
	-$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "nest-simulator>=3.10" "numpy<2.4"
	$(ORACLES)/bin/python -c "import brian2"
	touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	$(PIP) -e ".[test]"
	touch $@
