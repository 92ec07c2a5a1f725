# `make help` lists the targets. Everything runs in .venv, which `make setup` fills from requirements.lock.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# These variables are read from make's command line only: a shell may export such names for other purposes, and make has a default for AS.
# Another interpreter: make setup PYTHON=/path/to/python3.12
$(foreach name,PYTHON UPGRADE STAGE NAME AS PORT FORCE ARGS,$(if $(filter command,$(firstword $(origin $(name)))),,$(eval override $(name) :=)))
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Only the packages of the lock: none of the user's own site-packages, whatever the environment or pip's configuration.
export PYTHONNOUSERSITE := 1
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
unexport PYTHONPATH PYTHONHOME

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

## Set-up

.PHONY: setup
setup: .venv/.stamp ## make .venv with the packages of requirements.lock (PYTHON=… chooses the interpreter)

# Made from scratch, so that no package of an older lock remains; --no-deps because the lock is complete, which pip check verifies.
# The Python is looked up in the PATH without the old .venv.
# Compiled at the end on all cores, as pip compiles on one; some packages contain templates that are not Python and don't compile.
.venv/.stamp: requirements.lock tools/doctor.sh
	@if [ -L .venv ]; then echo "error: .venv is a symbolic link, and setting up would empty $$(readlink -f .venv); remove the link first" >&2; exit 1; fi
	python=$$(PATH="$${PATH#*:}" tools/doctor.sh $(PYTHON)) && "$$python" -m venv --clear .venv
	python -m pip install --no-deps --no-compile --requirement requirements.lock
	python -m pip check
	python -m compileall -q -j 0 .venv/lib >/dev/null || true
	touch $@

.PHONY: lock
lock: setup ## write requirements.lock from pyproject.toml, keeping the pins that still fit (UPGRADE=1: the newest versions)
	uv pip compile --quiet --universal --no-emit-index-url --no-annotate --group dev --custom-compile-command "make lock" \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml

## The pipeline

.PHONY: repro
repro: setup ## build the changed entries of params.yaml and all that depends on them (STAGE=train@frostbite-spirl: only that stage and its inputs)
	python -m pipeline.commands.repro $(STAGE)

.PHONY: annotate
annotate: setup ## annotate the frames of an entry of annotations in the browser (NAME=drawer-open AS=alice PORT=8080; without NAME: list the entries)
	python -m pipeline.commands.clicks $(if $(AS),--as $(AS)) $(if $(PORT),--port $(PORT)) $(NAME)

.PHONY: recipe
recipe: setup ## copy pipeline/recipes/NAME.yaml to params.yaml (FORCE=1: discard your edits; without NAME: list the recipes)
	python -m pipeline.commands.recipe $(if $(FORCE),--force) $(NAME)

.PHONY: smoke
smoke: setup ## build the recipe NAME with tiny budgets, one policy of each kind
	python -m pipeline.commands.smoke $(NAME)

.PHONY: results
results: setup ## render RESULTS.md, docs/results and BENCH.md from the committed measurements
	python -m pipeline.commands.results
	python -m bench.page

.PHONY: bench
bench: setup ## measure speed against plain baselines, as paired ratios
	python -m bench

## The code

.PHONY: check
check: lint types contract test ## run lint, types, contract and test

.PHONY: lint
lint: setup ## check ruff's rules and formatting, and the glossary of CONTRIBUTING.md
	ruff check .
	ruff format --check .
	python -m tools.terms

.PHONY: types
types: setup ## check types with mypy, strict
	mypy

.PHONY: contract
contract: setup ## check which package may import which
	lint-imports --no-logo

.PHONY: browser
browser: ## check for Chromium, which only the tests need (as root: install it)
	@tools/doctor.sh browser

# One thread a process: two test processes with two torch threads each are slower than this on two cores.
.PHONY: test
test: setup browser ## run every test that needs no GPU and no cluster (ARGS="-k shards -x" is passed on to pytest)
	OMP_NUM_THREADS=1 python -m pytest -m "not gpu and not cluster" -n logical --maxprocesses 4 --dist loadfile $(ARGS)

.PHONY: cluster
cluster: setup ## run the tests on several Ray nodes, which run on this machine (ARGS="-x" is passed on to pytest)
	OMP_NUM_THREADS=1 python -m pytest -m cluster $(ARGS)

.PHONY: adapters
adapters: setup ## use encoders in Stable-Baselines3 and TorchRL, in environments of their own (downloads these two; torch is that of .venv)
	python -m tests.adapters

.PHONY: exam
exam: setup ## flip single bits in the files of a tiny project for ten minutes; no damaged file may be used (ARGS="--minutes 60")
	OMP_NUM_THREADS=1 python -m tests.exam $(ARGS)

.PHONY: mutants
mutants: setup ## plant faults one at a time; each must make a test fail
	python -m tests.mutants

.PHONY: format
format: setup ## format the code with ruff
	ruff check --fix .
	ruff format .

.PHONY: clean
clean: ## remove .venv and the tools' caches, but neither artifacts nor DVC's cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
