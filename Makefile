# The verbs of this project; CI calls only these. `make setup` runs before each and is instant
# once .venv is there. Variables: PYTHON, MODEL, HOST, PORT, ARGS (flags), TESTS (paths, -k ...).
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check fmt bench soak docs lock

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
ARGS ?=
TESTS ?=
BIN := .venv/bin

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: ## .venv with everything: the first time some minutes, then nothing
	@$(PYTHON) -m tools.install

demo: setup ## one question answered by a tree, drawn in the terminal
	@$(BIN)/python -m tools.demo $(ARGS)

serve: setup ## the server in the foreground: MODEL= HOST= PORT= ARGS=
	@exec $(BIN)/treepo serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

test: setup ## the whole test suite, or TESTS=
	@$(BIN)/python -m tools.extras
	$(BIN)/python -m pytest $(TESTS)

check: setup ## formatting, lint, types, layers and the gates
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy -p tools
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.gates
	$(BIN)/python -m pytest --quiet --durations=0 tests/unit/commands/test_light_imports.py

fmt: setup ## formats, and repairs what lint can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## a short benchmark, against the committed result
	$(BIN)/python -m bench.quick $(ARGS)

soak: setup ## ten minutes of trees whose callers hang up; prints what was left: ARGS=
	@$(BIN)/python -m bench.soak $(ARGS)

docs: setup ## runs every code block of README.md and docs/
	$(BIN)/python -m pytest tests/docs $(TESTS)

lock: ## resolves each requirements/*.in anew into its lock; needs uv
	@$(PYTHON) -m tools.lock
