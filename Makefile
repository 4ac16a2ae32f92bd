# Everything starts here. Needs Python >= 3.11, make and the package index; all else is set up by the targets.
#
#   make demo     the six services on embedded servers, real input, audit and queries
#   make test     every test, in 3 processes     make check    linters, types, architecture, protocol
#   make up       the suite in the foreground make bench    BENCH=<name>, default whole-way
#   make protos   regenerate code             make baseline accept the protocol as the new compatibility baseline
#   make bigquery-emulator   what the tests of BigQuery need, in .venv-bigquery; without it they are skipped
#   make fuzz     the decoders of input and of consent signals against made-up input; FUZZ_SECONDS=<for each>, default 20

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
BENCH ?= whole-way
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROJECTS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
TYPED := $(wildcard libs services tools bench)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A process that may not keep bytecode compiles a thousand modules at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up test check protos baseline bench fuzz bigquery-emulator clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP)

$(STAMP): constraints.txt requirements-dev.txt $(PROJECTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CDI needs Python 3.11 or newer; set PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --no-build-isolation --requirement requirements-dev.txt
	@touch $@

demo: setup
	$(BIN)/cdi demo

up: setup
	$(BIN)/cdi up

test: setup
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate_protos --check
	$(BIN)/python -m tools.check_protos

protos: setup
	$(BIN)/python -m tools.generate_protos

baseline: setup
	$(BIN)/python -m tools.check_protos --write-baseline

bench: setup
	@mkdir -p build/bench
	$(BIN)/python -m bench.$(subst -,_,$(BENCH))

fuzz: setup
	@test -d $(VENV)/lib/python*/site-packages/atheris || $(BIN)/python -m pip install --quiet --no-compile --only-binary=:all: --requirement requirements-fuzz.txt
	$(BIN)/python -m tools.fuzz

bigquery-emulator:
	@test -x .venv-bigquery/bin/python || $(PYTHON) -m venv .venv-bigquery
	.venv-bigquery/bin/python -m pip install --quiet --no-compile --only-binary=:all: --requirement requirements-bigquery.txt

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
