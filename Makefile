# Two commands on a bare machine with Python 3.11, pip and make: `make demo` and `make test`.

.DEFAULT_GOAL := help
.PHONY: docs demo test check simulate up bench clean lock help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# uv is used where it is, since it is faster; it is never needed.
UV := $(shell command -v uv)
BIN := .venv/bin

# Tests that run side by side, each with servers and workers of its own: mostly they wait.
JOBS ?= 3

# One lock for everything, the tools of `make test` among it: the demo of a bare machine and CI then
# run on the very same versions, and a second file could only drift. It holds names, versions and
# hashes, and never a host: whatever index pip is set up for serves it.
LOCK := requirements.lock

# The project itself is installed last, editable, with the build backend from the lock: nothing that
# has no hash is ever fetched.
.venv/.stamp: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("celeriac needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCK)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@touch $@

demo: .venv/.stamp  ## run the shipped orders (ORDERS=, PRODUCTS=: your own files; JSON=1: one line at the end)
	@$(BIN)/python -m tasks.demo $(if $(ORDERS),--orders "$(ORDERS)") $(if $(PRODUCTS),--products "$(PRODUCTS)") $(if $(JSON),--json)

test: .venv/.stamp  ## format, lint, types and all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests --ignore tests/ui -m "not alone" -n $(JOBS) --dist worksteal
	$(BIN)/python -m pytest tests --ignore tests/ui -m alone
	$(BIN)/python -m pytest tests/ui -n $(JOBS) --dist loadfile  # a browser's event loop stays in the process that drives it

check: .venv/.stamp  ## what to run before each commit: format, lint, types, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit

simulate: .venv/.stamp  ## play the simulation: SEED=7 and its trace, or COUNT=10000 seeds
	@PYTHONPATH=.:tests $(BIN)/python -m simulation.run --seed $(or $(SEED),0) --count $(or $(COUNT),1) $(if $(COUNT),,--trace)

up: .venv/.stamp  ## Valkey, workers and (if installed) Flower under one supervisor, until Ctrl-C
	@$(BIN)/celery -A tasks up

bench: .venv/.stamp  ## speed beside stock Celery (QUICK=1: under a minute; ONLY=w3; PROFILE=1; GROWTH=1)
	@$(BIN)/python -m $(if $(GROWTH),bench.growth,bench) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(PROFILE),--profile)

chaos: .venv/.stamp  ## 200 orders while everything is killed, five seeds, beside stock Celery (SEED=3: that one alone)
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED))

# Written to a new file first: a lock that names a host never takes the old one's place.
lock:  ## resolve pyproject.toml anew into requirements.lock (needs uv on PATH or in .venv)
	@command -v $(or $(UV),$(BIN)/uv) >/dev/null || { echo "make lock needs uv: $(BIN)/python -m pip install uv" >&2; exit 2; }
	$(or $(UV),$(BIN)/uv) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--all-extras --group dev --upgrade pyproject.toml -o $(LOCK).new
	@if grep -nE 'https?://|file:|^--' $(LOCK).new; then echo "the lock must not name where packages come from" >&2; rm $(LOCK).new; exit 1; fi
	@mv $(LOCK).new $(LOCK)

docs: .venv/.stamp  ## build the documentation into site/, strictly; it asks nobody for anything
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove what make and the tools have made; runs and orders in .data/ stay
	rm -rf .venv dist site .shots .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
