# Everything a contributor runs. `make setup` once is enough; the other targets call it themselves and it
# does nothing when it is up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A virtual environment remembers where it was made. In a copied tree the old one would quietly run the
# sources of the place it came from, so it is made anew.
HOME_MARK := $(VENV)/.made-in
ifneq ($(shell cat $(HOME_MARK) 2>/dev/null),$(CURDIR))
MOVED := remade
endif

.PHONY: help setup setup-run demo run simulate test test-postgres lint format bench faults clean remade
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@echo 'make setup      virtual environment with everything for development, in $(VENV)'
	@echo 'make demo       a short self-contained show'
	@echo 'make run        the server, data in ./data'
	@echo 'make test       lint, then all tests'
	@echo 'make test-postgres  the engine and the scenarios on PostgreSQL'
	@echo 'make lint       ruff, mypy and the import contracts'
	@echo 'make format     rewrite the sources the way lint wants them'
	@echo 'make bench      the benchmarks'
	@echo 'make faults     the fault experiments; some of them: make faults ONLY="E01 E12 --quick"'
	@echo 'make simulate   the seeded crash simulation'

setup: $(VENV)/.installed-dev

# What it takes to run Paceline, without the tools to work on it.
setup-run: $(VENV)/.installed-run

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(HOME_MARK)
	$(PIP_INSTALL) -e '.[dev,postgres]'
	@touch $(VENV)/.installed-run $@

$(VENV)/.installed-run: pyproject.toml constraints.txt $(HOME_MARK)
	$(PIP_INSTALL) -e .
	@touch $@

$(HOME_MARK): $(MOVED)
	@PYTHON='$(PYTHON)' sh .ci/make-venv '$(VENV)'
	@printf '%s\n' '$(CURDIR)' > $@

demo: setup-run
	@$(BIN)/paceline demo

run: setup-run
	@$(BIN)/paceline up --data data

simulate: setup
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),200)

bench: setup
	@$(BIN)/python -m bench

faults: setup
	@$(BIN)/python -m bench.faults $(ONLY)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The last line printed is pytest's summary.
test: lint
	@sh .ci/services
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# Everything that has to hold on every store, on PostgreSQL; `make test` runs the shorter half of it.
test-postgres: setup
	@$(BIN)/python -m pytest -m every_store --stores postgres -n auto --maxprocesses 4 --dist loadfile

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
