# Everything runs in a virtual environment of its own. Wanted: Python 3.11 or newer, and make.

PYTHON ?= python3
VENV ?= .venv
STUDY ?= examples/05-pipeline.yaml
ENGINE ?= kfp
MINUTES ?= 30
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENERATORS := components pipelines.hpo_loop pipelines.retune tools.layers tools.data_page tools.wrong_inputs tools.prior_cards tools.reliability benchmarks.measurements

# Trials and tests run side by side, one thread each; libraries that take all cores would fight over them.
export OMP_NUM_THREADS ?= 1
export MLFLOW_DISABLE_TELEMETRY := true
# Bytecode is kept even where the environment says otherwise: tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install run ui test lint types contracts packages unit e2e kernels soak e2e-docker e2e-chunks \
	e2e-cluster e2e-cluster-all format generate check-generated lock clean

help: ## show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## create the virtual environment and install rlhpo with all that its tests need

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

run: install ## run the looping pipeline on an example: make run STUDY=examples/02-regression.yaml ENGINE=inprocess
	$(BIN)/rlhpo tune $(STUDY) --engine $(ENGINE)

ui: install ## open MLflow on the studies under runs/
	$(BIN)/rlhpo ui

test: lint types contracts unit ## everything that has to pass at every change

lint: install ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict for rlhpo_core
	$(BIN)/mypy

contracts: install ## which module may import which
	$(BIN)/lint-imports

packages: install ## the tree of packages: layers, sizes, imports, and what is wrong with it
	$(BIN)/python -m tools.packages

# Three workers on two cores: a third of their time they wait for processes and servers.
unit: install ## unit and property-based tests, whole studies in one process, one by the command line
	$(BIN)/python -m pytest -m 'not e2e' -n 3 --dist worksteal --durations=10

e2e: install ## whole studies by the command line, as pipelines by KFP's local runner, and in a browser
	$(BIN)/python -m pytest -m e2e -n 2 --dist loadfile --durations=10

kernels: install ## the numerical tests with the routines of other processors and with two threads; all with TESTS=tests
	$(BIN)/python -m tests.kernels $(TESTS)

soak: install ## kills, outages and full disks at random moments of real studies, for MINUTES=30; results add up
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --jobs 2

e2e-docker: install ## build the image and run the pipeline in containers of it (many minutes; a Docker engine or root)
	RLHPO_E2E_DOCKER=1 $(BIN)/python -m pytest -s -rs tests/e2e/test_docker.py

e2e-chunks: install ## thirty rounds in runs of ten by KFP's local runner, with a kill (a quarter of an hour)
	RLHPO_E2E_CHUNKS=1 $(BIN)/python -m pytest -s tests/e2e/test_chunks.py -k kfp

e2e-cluster: install ## the pipelines on a cluster that RLHPO_CLUSTER names (CONTRIBUTING.md), or RLHPO_CLUSTER=here (40 minutes)
	$(BIN)/python -m pytest -s -rs -n 4 tests/cluster

e2e-cluster-all: install ## every fault at every step of it (hours)
	RLHPO_CLUSTER_ALL=1 $(BIN)/python -m pytest -s -rs -n 4 tests/cluster

format: install ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: install ## write generated files: pipelines, READMEs of components, the picture of layers, cards of priors, measurements
	@for module in $(GENERATORS); do $(BIN)/python -m $$module || exit 1; done

check-generated: install ## whether generated files are what `make generate` would write
	@for module in $(GENERATORS); do $(BIN)/python -m $$module --check || exit 1; done

lock: ## resolve the newest versions that pyproject.toml allows into requirements.lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'torch==2.13.0'
	build/lock/bin/python -m pip install --quiet --editable '.[dev,benchmarks]'
	build/lock/bin/python -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > requirements.lock

clean: ## remove the virtual environment and caches; studies under runs/ stay
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
