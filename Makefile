# `make serve` and `make test` set up all they need; nothing else has to be installed for them
# than python3 with its venv module, and make.
PYTHON ?= python3
BIN := .venv/bin
# Processes that share the tests: two for those that mostly wait, and one a core.
TESTERS ?= $(shell expr 2 + `nproc`)
# Seven days of cooldown: a poisoned release is usually found and pulled within them.
COOLDOWN := $(shell date -u -d '7 days ago' +%Y-%m-%d)

.DEFAULT_GOAL := help
.PHONY: help setup serve test check format bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: .venv/.run ## install what the daemon needs; it stands at .venv/bin/cypd then

serve: setup ## run the registry on an embedded default, data under ./data
	$(BIN)/cypd serve

test: .venv/.dev ## run the tests; names what it skipped and why
	$(BIN)/pytest -n $(TESTERS) $(ARGS)

check: .venv/.dev ## formatting, lint, strict types, import directions, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: .venv/.dev ## put the sources into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev ## measure against nginx and docker-registry (both from Debian), write benchmarks/results/
	$(BIN)/python -m benchmarks $(ARGS)

lock: .venv/.dev ## resolve the newest allowed versions into the two lock files
	$(BIN)/uv pip compile -q pyproject.toml --group build $(LOCK_FLAGS) -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --group dev -c requirements.lock $(LOCK_FLAGS) -o requirements-dev.lock
LOCK_FLAGS := --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --no-header --exclude-newer $(COOLDOWN)

clean: ## remove what the targets above made, data excepted
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.venv:
	$(PYTHON) -m venv .venv || { echo "cypd needs Python 3.11 or newer with its venv module: apt install python3-venv" >&2; exit 1; }
	@touch $@

# --no-build-isolation: the build back end comes from the lock too, not from wherever pip finds one.
.venv/.run: requirements.lock pyproject.toml .venv/.venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
