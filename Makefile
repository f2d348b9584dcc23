# Every target is enough by itself on a fresh machine with Python 3.11 or 3.12, venv and make.
PYTHON  ?= python3
PROFILE ?= quick
CORES   ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
VENV    := .venv
READY   := $(VENV)/.ready
BIN     := $(VENV)/bin
# Results on a CPU come from single-threaded processes, one a core.
SINGLE  := NPROC=1 OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false $(XLA_FLAGS)"

define draw_bench
	@mkdir -p runs/.tmp
	TMPDIR="$(CURDIR)/runs/.tmp" $(BIN)/papermill notebooks/90_bench.ipynb runs/90_bench.ipynb -k python3 -l python \
	  -p results results/bench -p figures figures/bench --no-progress-bar
	$(BIN)/python -m reproduction.gallery figures
endef

.DEFAULT_GOAL := help
.PHONY: help env reproduce progress adopt figures test check lint lab bench storm clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo "PROFILE=quick|cpu|paper|smoke|atari|atari-cpu chooses the experiments, CORES=n the processes."

env: $(READY) ## create the environment from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: Python 3.11 or 3.12 is needed, $(PYTHON) is another; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3" >/dev/null
	@touch $@

reproduce: $(READY) ## data, runs and every figure of PROFILE; goes on where it was cut off
	$(BIN)/python pipeline.py --profile '$(PROFILE)' --cores '$(CORES)'

progress: $(READY) ## how far the runs of PROFILE are, and when they will be done
	@$(BIN)/python pipeline.py --profile '$(PROFILE)' --cores '$(CORES)' --progress

adopt: $(READY) ## take committed results of PROFILE as done, so that only what is new is trained
	$(BIN)/python pipeline.py --profile '$(PROFILE)' --adopt

figures: PROFILE = cpu
figures: $(READY) ## redraw figures from committed results (PROFILE=cpu); trains nothing
	$(BIN)/python pipeline.py --profile '$(PROFILE)' --cores '$(CORES)' --figures
	$(draw_bench)

test: $(READY) ## all tests, a file at a time on each core
	$(SINGLE) $(BIN)/python -m pytest -n $(CORES) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, and the fast tests: for use between edits
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(SINGLE) $(BIN)/python -m pytest -n $(CORES) --maxprocesses 8 -m "not slow"

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lab: $(READY) ## JupyterLab on notebooks/
	XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_DEFAULT_MATMUL_PRECISION=float32 \
	  $(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(READY) ## speed and memory beside the reference loop, and their figure
	$(BIN)/python benchmarks/measure.py --out results/bench
	$(draw_bench)

storm: $(READY) ## kill the pipeline and damage its files at random: some 40 minutes on two cores
	$(BIN)/python benchmarks/storm.py --out results/bench

clean: ## remove the environment and caches; runs, results and figures stay
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache .hypothesis build lib/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
