# `make help` lists the targets. Everything runs in .venv, which `make setup` fills from requirements.lock.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# Taken from make's command line only. A shell may export any of these names for its own purposes, and AS has a default in make.
# Another interpreter: make setup PYTHON=/path/to/python3.12
$(foreach name,PYTHON UPGRADE STAGE NAME AS PORT FORCE ARGS,$(if $(filter command,$(firstword $(origin $(name)))),,$(eval override $(name) :=)))
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Only what the lock names: nothing from the user's own site-packages, whatever the environment or pip's config says.
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

# Made anew each time, so that nothing of an older lock stays; --no-deps because the lock is complete (pip check proves it).
# The Python comes from the system's PATH, not from the old .venv in front of it.
# Compiled by all cores at the end, which pip does by one; some packages carry templates that are no Python and don't compile.
.venv/.stamp: requirements.lock tools/doctor.sh
	@if [ -L .venv ]; then echo "error: .venv is a symbolic link, and setting up would empty $$(readlink -f .venv); remove the link first" >&2; exit 1; fi
	python=$$(PATH="$${PATH#*:}" tools/doctor.sh $(PYTHON)) && "$$python" -m venv --clear .venv
	python -m pip install --no-deps --no-compile --requirement requirements.lock
	python -m pip check
	python -m compileall -q -j 0 .venv/lib >/dev/null || true
	touch $@

.PHONY: lock
lock: setup ## pin requirements.lock anew from pyproject.toml, keeping the pins that still fit (UPGRADE=1: newest)
	uv pip compile --quiet --universal --no-emit-index-url --no-annotate --group dev --custom-compile-command "make lock" \
		$(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml

## The pipeline

.PHONY: repro
repro: setup ## build what params.yaml asks for and has changed (STAGE=train@frostbite-spirl: only that and what it needs)
	python -m pipeline.commands.repro $(STAGE)

.PHONY: annotate
annotate: setup ## click on the frames of an entry of annotations, in the browser (NAME=drawer-open AS=alice PORT=8080)
	python -m pipeline.commands.clicks $(if $(AS),--as $(AS)) $(if $(PORT),--port $(PORT)) $(NAME)

.PHONY: recipe
recipe: setup ## make pipeline/recipes/NAME.yaml the current params.yaml (FORCE=1: over your edits; without NAME: what there is)
	python -m pipeline.commands.recipe $(if $(FORCE),--force) $(NAME)

.PHONY: smoke
smoke: setup ## build the recipe NAME at tiny budgets, one policy of each kind
	python -m pipeline.commands.smoke $(NAME)

.PHONY: results
results: setup ## render RESULTS.md, docs/results and BENCH.md from what is measured so far
	python -m pipeline.commands.results
	python -m bench.page

.PHONY: bench
bench: setup ## measure paired ratios against plain baselines
	python -m bench

## The code

.PHONY: check
check: lint types contract test ## all of the four below

.PHONY: lint
lint: setup ## ruff's rules and formatting, and the glossary of CONTRIBUTING.md
	ruff check .
	ruff format --check .
	python -m tools.terms

.PHONY: types
types: setup ## mypy, strict
	mypy

.PHONY: contract
contract: setup ## who may import whom
	lint-imports --no-logo

.PHONY: browser
browser: ## check (as root: install) what only the tests need
	@tools/doctor.sh browser

# One thread a process: two test processes with two torch threads each are slower than this on two cores.
.PHONY: test
test: setup browser ## every test that needs no GPU (ARGS="-k shards -x" is passed on to pytest)
	OMP_NUM_THREADS=1 python -m pytest -m "not gpu" -n logical --maxprocesses 4 --dist loadfile $(ARGS)

.PHONY: exam
exam: setup ## flip one bit at a time in every file that anything reads, for ten minutes; none may be used (ARGS="--minutes 60")
	OMP_NUM_THREADS=1 python -m tests.exam $(ARGS)

.PHONY: mutants
mutants: setup ## plant faults one at a time; each must turn a test red
	python -m tests.mutants

.PHONY: format
format: setup ## let ruff rewrite the code
	ruff check --fix .
	ruff format .

.PHONY: clean
clean: ## remove .venv and the tools' caches; artifacts and DVC's cache stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
