# `make` lists what there is. Everything runs from .venv, which scripts/provision.sh makes.

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help up down status demo test test-faults bench check clean provision provision-tests

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: provision ## install what is missing, start everything, wait until it is ready
	@$(BIN)/orderflow stack up

down: ## stop everything in the right sequence
	@if [ -x $(BIN)/orderflow ]; then $(BIN)/orderflow stack down; else echo "nothing is installed, so nothing runs"; fi

status: ## say what runs, and who waits for what (exit 0: all is well)
	@$(BIN)/orderflow status

demo: ## send some orders, good and bad, through the running stack and show what came of each
	@$(BIN)/orderflow demo

test: provision-tests ## ruff, mypy and all tests but the long ones
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -m "not faults"

test-faults: provision-tests ## the long tests: kill, freeze and poison whole stacks
	$(BIN)/pytest -m faults

bench: provision ## measure on a stack of its own, beside the ceilings of this machine
	$(BIN)/python benchmarks/run.py

check: provision-tests ## the quick part of `make test`: ruff, mypy, unit tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit

clean: ## remove caches and build leftovers; never var/, which holds the data
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -path ./.venv -prune -o -path ./var -prune -o -name __pycache__ -type d -exec rm -rf {} +

provision:
	@scripts/provision.sh

provision-tests:
	@scripts/provision.sh --tests
