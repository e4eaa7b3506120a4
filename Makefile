# `make quickstart` needs only Python (3.11 to 3.13), make and a network for the first install.

PYTHON ?= python3
CONSTRAINTS ?= -c constraints.txt
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
RLFD := $(BIN)/rlfd

.DELETE_ON_ERROR:
.PHONY: help install quickstart test test-slow lint types format bench clean

help:
	@echo "make quickstart   demonstrations, training, evaluation, figure: quickstart/lunarlander.png"
	@echo "make test         lint, types and tests"
	@echo "make test-slow    learning tests, minutes each"
	@echo "make lint types format bench clean"

# ------------------------------------------------------------------------------------- install
install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet $(CONSTRAINTS) "setuptools>=77" torch
	$(PIP) install --quiet $(CONSTRAINTS) --no-build-isolation --editable ".[dev]"
	touch $@

# ---------------------------------------------------------------------------------- quickstart
QUICK := quickstart
QUICK_SEEDS := 0 1 2
QUICK_STEPS := 80k
QUICK_FOLDERS := --runs-dir $(QUICK)/runs --data-dir $(QUICK)/data
QUICK_RUNS := $(QUICK)/runs/default/sqil/LunarLander-shifted

# Demonstrations land from the easy start; SQIL learns from the shifted one, without any reward.
quickstart: $(INSTALLED)
	rm -rf $(QUICK)
	$(RLFD) collect-demos --env LunarLander --start demo --episodes 100 --name controller \
		--data-dir $(QUICK)/data
	printf '%s\n' $(QUICK_SEEDS) | xargs -P 2 -I SEED $(RLFD) train sqil \
		--env LunarLander --start shifted --demos controller --steps $(QUICK_STEPS) \
		--final-episodes 20 --seed SEED --no-progress $(QUICK_FOLDERS) >/dev/null
	$(RLFD) evaluate $(QUICK_RUNS)/seed0 --episodes 20
	$(RLFD) plot $(QUICK_RUNS) --metric success --out $(QUICK)/lunarlander.png
	@echo "The figure is in $(QUICK)/lunarlander.png, the runs are in $(QUICK_RUNS)."

# --------------------------------------------------------------------------------------- checks
test: lint types
	$(TEST) -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED)
	$(TEST) -n 2 --dist worksteal -m slow

# One torch thread for each worker: two that wait for each other are slower than one.
TEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not look through the mapping of an editable install, so it gets a copy.
types: $(INSTALLED)
	rm -rf build/typed build/lib build/bdist*
	$(PIP) install --quiet --no-deps --no-build-isolation --target build/typed .
	MYPYPATH=build/typed $(BIN)/mypy -p rlfd

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf build $(QUICK) *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
