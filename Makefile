# `make setup` builds .venv from the lock file; every other target builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# What .venv has beside the package's own needs.
EXTRAS := app cluster compact formats int8 open-clip openvino remote serve transformers video
# Left to the machine's own index, which may have another build: without CUDA, say.
OF_TORCH := (cuda|nvidia)-.*|torch|torchvision|triton
EXPORT = $(BIN)/uv export --quiet --frozen --no-emit-project --no-annotate --no-header

.PHONY: help setup demo docs test torture fuzz soak lint format bench lock wheel sbom audit clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## install the locked packages into .venv

# Every package must have a digest of the lock file, but for PyTorch and torchvision: their versions alone are
# held to, so that pip takes the build that the machine's index offers, and CUDA packages only where it needs them.
$(STAMP): pyproject.toml uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'uv>=0.8'
	$(EXPORT) $(addprefix --extra ,$(EXTRAS)) --group dev \
		$$(sed -nE 's/^name = "($(OF_TORCH))"$$/--no-emit-package \1/p' uv.lock) -o $(VENV)/locked.txt
	$(BIN)/python -m pip install --quiet --retries 10 --no-deps --require-hashes -r $(VENV)/locked.txt
	$(EXPORT) --all-extras --all-groups --no-hashes -o $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --retries 10 -c $(VENV)/constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --no-deps -e .
	$(BIN)/python scripts/check_torchvision.py
	@touch $(STAMP)

demo: setup  ## draw photos of invented species and train on them
	$(BIN)/fieldmark demo --out demo

docs: setup  ## build the documentation site into site/
	$(EXPORT) --only-group docs -o $(VENV)/docs.txt
	$(BIN)/python -m pip install --quiet --retries 10 --no-deps --require-hashes -r $(VENV)/docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A worker a core, so each computes with one thread; a file's tests share what they prepare, so they stay
# together.
test: lint  ## lint and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# A few points of it are in `make test`; all take hours. Stopped at any time, it goes on where it was.
torture: setup  ## kill and fail every command at every write, into torture/
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture torture $(TORTURE)

# A second of each target is in `make test`. What it finds is written to fuzz-TARGET-NUMBER in this folder.
FUZZED := image annotations boxes csv darwin-core parquet form journal classifier neighbours
MINUTES ?= 10
fuzz: setup  ## give damaged input to all that reads, MINUTES=10 a target
	@for target in $(FUZZED); do OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $$target --minutes $(MINUTES) || exit 1; done

SECONDS ?= 3600
soak: setup  ## serve for SECONDS=3600 at 0.9 of the capacity: wrong answers, growing memory
	$(BIN)/python -m tests.soak --seconds $(SECONDS)

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
