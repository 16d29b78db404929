# Set-up lives in .venv and happens once, at the first target that needs it: see `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
DEMO_STORE := results/demo
# As many at once as there are cores; of those that start clusters and kill processes two, each file in one process.
TESTS_AT_ONCE = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint format benchmarks docs lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(SET_UP) ## a whole experiment on made-up text, in minutes; prints where the results are
	$(BIN)/python sweeps/demo.py --store $(DEMO_STORE)

test: $(SET_UP) ## every test
	$(TESTS_AT_ONCE) --ignore tests/cluster
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/cluster

test-fast: $(SET_UP) ## the tests that take less than about five seconds
	$(TESTS_AT_ONCE) -m "not slow"

lint: $(SET_UP) ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(SET_UP) ## mend style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

benchmarks: $(SET_UP) ## this package beside its peers, by turns; on your own texts by DATA=DIR MODEL=DIR
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py $(if $(DATA),--data $(DATA)) $(if $(MODEL),--model $(MODEL))

docs: $(SET_UP) ## the documentation as pages in site/, checked: a link to nothing or an unknown equation is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(SET_UP) ## pin what pyproject.toml asks for; make lock UPGRADE=--upgrade takes newer releases
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras $(UPGRADE) \
		--no-emit-index-url --no-emit-find-links --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove the environment, the caches and the demo's results
	rm -rf $(VENV) $(DEMO_STORE) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find d3m_ray sweeps benchmarks tests -type d -name __pycache__ -prune -exec rm -rf {} +

# requirements.lock constrains versions and asks for nothing itself, so that a torch built for the CPU, where pip finds
# one, is taken without the CUDA packages that are pinned too. kronfluence declares torchvision and never imports it:
# where it does not fit the torch beside it, transformers can load no model, so it goes.
$(SET_UP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "d3m_ray needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@$(BIN)/python -c 'import torchvision' 2>/dev/null || $(BIN)/python -m pip uninstall --quiet --yes torchvision
	@touch $@
