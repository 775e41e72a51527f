# `make setup` builds .venv from the lock file; every other target builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help setup demo docs test torture lint format bench lock wheel sbom audit clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## install the locked packages into .venv

# uv writes the lock file out as constraints and pip installs with them: so pip takes the build of PyTorch
# that the machine's index offers (CPU only, say), and CUDA packages only where that build needs them.
$(STAMP): pyproject.toml uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'uv>=0.8'
	$(BIN)/uv export --quiet --frozen --all-extras --all-groups --no-hashes --no-emit-project --no-annotate -o $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt --group dev -e '.[app,cluster,compact,formats,int8,open-clip,openvino,remote,serve,transformers,video]'
	$(BIN)/python scripts/check_torchvision.py
	@touch $(STAMP)

demo: setup  ## draw photos of invented species and train on them
	$(BIN)/fieldmark demo --out demo

docs: setup  ## build the documentation site into site/
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A worker a core, so each computes with one thread; a file's tests share what they prepare, so they stay
# together.
test: lint  ## lint and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# A few points of it are in `make test`; all take hours. Stopped at any time, it goes on where it was.
torture: setup  ## kill and fail every command at every write, into torture/
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture torture $(TORTURE)

lint: setup  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## compare with what a user would take instead
	$(BIN)/python -m benchmarks

lock: setup  ## renew uv.lock after a change of dependencies
	$(BIN)/uv lock

wheel: setup  ## build the wheel and the source archive into dist/
	$(BIN)/uv build --quiet --out-dir dist

sbom: setup  ## list what the package needs, with digests, into sbom.json (CycloneDX)
	$(BIN)/uv export --quiet --frozen --all-extras --no-dev --format cyclonedx1.5 -o sbom.json

audit: setup  ## look for known weaknesses in the locked packages
	@$(BIN)/uv export --quiet --frozen --all-extras --no-dev --no-emit-project -o $(VENV)/audit.txt
	@$(BIN)/python scripts/audit.py $(VENV)/audit.txt

clean:  ## remove what was built
	rm -rf $(VENV) demo site dist sbom.json torture .mypy_cache .pytest_cache .ruff_cache
