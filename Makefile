# `make setup` builds .venv from the lock file; every other target builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help setup demo test lint format bench lock clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## install the locked packages into .venv

# The lock is read by uv and the packages are installed by pip with it as constraints: so a build of
# PyTorch that the machine offers (CPU only, say) is taken as it is, and CUDA packages come along
# only where the build asks for them.
$(STAMP): pyproject.toml uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'uv>=0.8'
	$(BIN)/uv export --quiet --frozen --all-extras --all-groups --no-hashes --no-emit-project --no-annotate -o $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt --group dev -e '.[cluster,openvino,remote,serve]'
	@touch $(STAMP)

demo: setup  ## draw a field guide, train on it, look at the result
	$(BIN)/fieldmark demo --out demo

test: lint  ## everything that must hold
	$(BIN)/python -m pytest

lint: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## put the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## measure against what a user would pick instead
	$(BIN)/python -m benchmarks

lock: setup  ## renew uv.lock after a change of dependencies
	$(BIN)/uv lock

clean:  ## remove what was built
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache
