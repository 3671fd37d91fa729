# Every target makes .venv itself (with uv where it is installed, else with venv and pip).
#   make PYTHON=/path/to/python3 ...   chooses the Python that .venv is made of

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
QUESTION := What is AI Playground?
INPUTS := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml) \
          scripts/bootstrap.py scripts/install.py scripts/llama_wheel.py

# For tests and benchmarks alone: compiled once, and kept in your cache.
SERVER := $(BIN)/python -m scripts.llama_server

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full check bench llama-server clean

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## The development environment .venv

$(READY): $(INPUTS)
	@$(PYTHON) scripts/bootstrap.py

demo: $(READY) ## A language model answers, on this machine and offline
	@printf '\n> %s\n\n' '$(QUESTION)'
	@$(BIN)/aipg chat -m guide '$(QUESTION)'
	@printf '\n%s\n' 'That was a tiny language model, run by llama.cpp on this machine. Try next:'
	@printf '  %s\n' \
	  '$(BIN)/aipg chat -m guide     talk with it (Ctrl-C stops an answer, Ctrl-D leaves)' \
	  '$(BIN)/aipg doctor            is everything in order here?' \
	  '$(BIN)/aipg models            which models are there, and where to put your own' \
	  '$(BIN)/aipg --help            everything else'

check: $(READY) ## Formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .

test: check ## Checks, then all tests but the long ones
	$(SERVER)
	$(BIN)/python -m pytest -m "not full"

test-full: check ## Checks, then all tests
	$(SERVER)
	$(BIN)/python -m pytest

bench: $(READY) ## Measure, side by side (WRITE=1: into docs/benchmarks.md; ONLY=engine: one part)
	$(SERVER)
	$(BIN)/python -m tests.benchmarks $(if $(WRITE),--write) $(if $(ONLY),--only $(ONLY))

llama-server: $(READY) ## The llama-server for tests and benchmarks: compiled once (7 min on 2 cores)
	$(SERVER)

clean: ## Remove .venv and everything generated (the compiled llama.cpp stays in your cache)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find core plugins scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
