# Every target sets up what it needs. VENV and PYTHON can be given: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(READY)  ## virtual environment with the package and the tools

lint: $(READY)  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)  ## the tests: CPU, no network, a few minutes
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(READY)  ## every test that this machine can run
	$(BIN)/python -m pytest -n 2

smoke: $(READY)  ## the study at smoke scale: proves that the parts fit, measures nothing worth quoting
	$(BIN)/python -m benchmark study experiment=baselines scale=smoke $(SMOKE_DATA)

bench: $(READY)  ## the main job: the study on a GPU; on a machine without one, the smoke study
	@VENV=$(VENV) sh scripts/bench.sh

report: $(READY)  ## tables from the records
	$(BIN)/python -m benchmark report

perf: $(READY)  ## how fast we are against the originals' manner: ratios with ranges and controls
	@for script in scripts/perf_*.py; do \
		case $$script in scripts/perf_common.py) continue;; esac; \
		echo "== $$script"; $(BIN)/python $$script || exit 1; \
	done

check: $(READY)  ## judge every record
	$(BIN)/python -m benchmark check

clean:  ## remove the environment and throw-away results; records stay
	rm -rf $(VENV) results/.smoke artifacts .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup lint test test-slow smoke bench report perf check clean
