# Every target works in a fresh clone: each brings the virtual environment along.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test quick lint docs dist try-dist test-lowest bench quality scale torture fuzz exact-arm clean
.DEFAULT_GOAL := demo

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(READY)  ## the whole main job on generated data, offline
	$(BIN)/vocprep demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quick: $(READY)  ## the tests that fit between two edits, under a minute
	VOCPREP_TESTS=quick $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow and not torture" -q

lint: $(READY)  ## format, style, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY)  ## the documentation as a site in site/, offline; any warning is an error
	$(BIN)/zensical build --config-file mkdocs.yml --clean --strict

dist: $(READY)  ## wheel and sdist in dist/, checked
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

try-dist: dist  ## the wheel in environments of its own: the core, then each extra; minutes, and torch's size on disk
	$(BIN)/python release/try_dist.py dist build/try-dist

# What old releases warn of concerns themselves, or newer ones of what they stand on.
LOWEST := build/lowest
test-lowest:  ## all tests with the lowest version of each dependency; fetches them
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) release/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --editable '.[dev]' --constraint $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist worksteal -W default

# The loaders of other libraries are measured where `pip install -e '.[bench]'` brought them: some of
# them hold numpy back, which an environment for development should not be.
bench: $(READY)  ## the speed claims, one table each; under ten minutes on two idle cores
	for script in $(filter-out benchmarks/compare.py benchmarks/quality.py benchmarks/scale.py,$(wildcard benchmarks/[a-z]*.py)); do \
		name=$$(basename $$script .py); echo "== $$name"; \
		$(BIN)/python $$script --json benchmarks/results/$$name.json || exit 1; \
	done

quality: $(READY)  ## the scores of all presets on photographs; about half an hour on two idle cores
	$(BIN)/python benchmarks/quality.py --json benchmarks/results/quality.json

scale: $(READY)  ## versions of up to a million samples; half an hour and 3 GB of disk
	$(BIN)/python benchmarks/scale.py --json benchmarks/results/scale.json

torture: $(READY)  ## the long form of the crash tests
	$(BIN)/python -m pytest -m torture

# make fuzz SECONDS=600 SEED=7, or INPUTS=10000; more by `PYTHONPATH=tests python -m fuzz --help`.
fuzz: $(READY)  ## damaged files of every kind that is read: SECONDS=60 SEED=0, or INPUTS=10000
	PYTHONPATH=tests $(BIN)/python -m fuzz --seed $(or $(SEED),0) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUTS),--inputs $(INPUTS))

exact-arm: $(READY)  ## exact arithmetic on emulated 64-bit ARM; on Debian, fetches 400 MB, takes minutes
	tests/arm/run.sh $(BIN)/python build/exact-arm

clean:  ## everything that the other targets make
	rm -rf $(VENV) site .cache vocprep-demo seed-walkthrough fuzz-failures dist build .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vocprep needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
