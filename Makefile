# Every target works in a fresh clone: each brings the virtual environment along.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test quick lint bench quality torture clean

demo: $(READY)  ## the whole main job on generated data, offline
	$(BIN)/vocprep demo

test: $(READY)  ## all tests
	$(BIN)/python -m pytest --numprocesses 2

quick: $(READY)  ## the tests that fit between two edits, under a minute
	VOCPREP_TESTS=quick $(BIN)/python -m pytest --numprocesses 2 -m "not slow and not torture" -q

lint: $(READY)  ## format, style, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The loaders of other libraries are measured where `pip install -e '.[bench]'` brought them: some of
# them hold numpy back, which an environment for development should not be.
bench: $(READY)  ## the speed claims, one table each; under ten minutes on two idle cores
	for script in $(filter-out benchmarks/quality.py,$(wildcard benchmarks/[a-z]*.py)); do \
		name=$$(basename $$script .py); echo "== $$name"; \
		$(BIN)/python $$script --json benchmarks/results/$$name.json || exit 1; \
	done

quality: $(READY)  ## the scores of all training recipes on photographs; an hour and more on two cores
	$(BIN)/python benchmarks/quality.py --json benchmarks/results/quality.json

torture: $(READY)  ## the long form of the crash tests
	$(BIN)/python -m pytest -m torture

clean:  ## everything that the other targets make
	rm -rf $(VENV) vocprep-demo seed-walkthrough dist build .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vocprep needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
