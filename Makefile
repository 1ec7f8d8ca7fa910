# Every target sets up what it needs. VENV and PYTHON can be given: make test PYTHON=python3.12
# So can a study and a folder of data: make bench EXPERIMENT=smoke DATA=/folder/with/cifar-100-python/in/it
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml setup.py constraints.txt
	@echo "setting up $(VENV): a virtual environment, then torch, nni and the tools (minutes, and about 2 GB, the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt --editable '.[dev,onnx,ray,report]'
	@touch $@
	@echo "$(VENV) is ready"

setup: $(READY)  ## virtual environment with the package and the tools

lint: $(READY)  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY)  ## the tests: CPU, no network, a few minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: $(READY)  ## what `make test` leaves out: whole lives, sweeps, the wheel
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "slow and not gpu"

test-peers:  ## Zeus and CodeCarbon beside our tracer on one fake GPU, in an environment of their own
	sh scripts/peers.sh $(PYTHON)

gpu-check: $(READY)  ## put the energy meter of this GPU to the test: five minutes, once per device and driver
	$(BIN)/python scripts/gpu_check.py

gpu-first: $(if $(python),,$(READY))  ## the first hour on a GPU machine, resumable: minutes=27 in all, python= wheels= data= without a network
	$(or $(python),$(BIN)/python) scripts/gpu_first.py $(foreach name,minutes wheels data results,$(if $($(name)),--$(name) $($(name))))

smoke: $(READY)  ## one life a family at smoke scale: proves that the parts fit, measures nothing worth quoting
	$(BIN)/python -m benchmark study experiment=smoke $(if $(DATA),paths.data=$(DATA))

bench: $(READY)  ## the main job: on a GPU the study `quick`, without one `demo` (EXPERIMENT=table3, DATA=/folder choose)
	@VENV=$(VENV) EXPERIMENT=$(EXPERIMENT) DATA=$(DATA) sh scripts/bench.sh

table3: $(READY)  ## the rows of the paper's Table 3 with three seeds on a GPU (hours), the paper's manner beside ours, and the verdict
	@VENV=$(VENV) EXPERIMENT=table3 DATA=$(DATA) sh scripts/bench.sh seeds=3
	@VENV=$(VENV) EXPERIMENT=profiles DATA=$(DATA) sh scripts/bench.sh
	$(BIN)/python scripts/judge_table3.py

soak: $(READY)  ## a smoke study killed at twenty random moments, and what comes of it
	$(BIN)/python -m pytest -m slow tests/harness/test_soak.py tests/harness/test_injected.py --kills 20

report: $(READY)  ## tables, figures and the page from the records
	$(BIN)/python -m benchmark report

gallery: $(READY)  ## every table, figure and page: of the paper's table, the demo's records, and a board that does not exist
	@VENV=$(VENV) RESULTS=$(RESULTS) sh scripts/gallery.sh

perf: $(READY)  ## how fast we are against the originals' manner: ratios with ranges and controls
	@status=0; for script in scripts/perf_*.py; do \
		case $$script in scripts/perf_common.py) continue;; esac; \
		echo "== $$script"; $(BIN)/python $$script || status=1; \
	done; exit $$status

check: $(READY)  ## judge every record
	$(BIN)/python -m benchmark check

clean:  ## remove the environment and throw-away results; records stay
	rm -rf $(VENV) results/.smoke results/.demo results/.paper results/.fake-board artifacts .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup lint test test-slow test-peers gpu-check gpu-first perf smoke bench table3 soak report gallery check clean
