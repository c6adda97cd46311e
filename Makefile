# The checkout's own environment; every target makes what it needs, so each works as the first command.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test docs chaos check hosts bench fuzz clean

help: ## show this help
	@echo "settle-mp: make TARGET"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## see it work: real gunicorn workers, real kills, tracked against billed
	@$(BIN)/settle-mp demo

test: $(VENV)/.installed-dev ## run the tests
	@$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

chaos: $(VENV)/.installed-dev ## play faults at a host under load and say what was lost: make chaos SEED=17 ROUNDS=1000
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --rounds $(or $(ROUNDS),1) --jobs $(or $(JOBS),1) $(CHAOS_OPTIONS)

check: $(VENV)/.installed-dev ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

hosts: $(VENV)/.installed-dev ## play every host in every form, and make its table (an hour; goes on where it was stopped)
	@$(BIN)/python -m tests.hosts $(ROWS)

docs: $(VENV)/.installed-docs ## build the site of the documentation into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "Built: build/site/index.html; to search it as well: $(BIN)/python -m http.server --directory build/site"

bench: $(VENV)/.installed-dev ## run the benchmarks (minutes; wants a quiet machine)
	@for name in track loop collector idle footprint hub; do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

fuzz: $(VENV)/.installed-dev $(VENV)/.installed-fuzz ## fuzz all decoders, RUNS inputs each (1,000,000: some minutes)
	@$(BIN)/python -m tests.fuzz --runs $(or $(RUNS),1000000)

clean: ## remove the environment, caches and built packages
	rm -rf $(VENV) .fuzz dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find settle_mp tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Rebuilt in place when pyproject.toml changes. "dev" holds all of "demo", so that make demo works offline after make test.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing settle-mp[$*] and what it needs into $(VENV) (a minute or so the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --editable '.[$*]' || { \
	  echo; echo "make: pip could not install the packages above. It needs to reach PyPI or your own index (PIP_INDEX_URL)."; exit 1; }
	@touch $@ $(if $(filter dev,$*),$(VENV)/.installed-demo $(VENV)/.installed-docs)

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "make: $(PYTHON) was not found. Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: settle-mp needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) has no venv module. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
