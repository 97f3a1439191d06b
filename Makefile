# `make demo` and `make test` set everything up on a fresh machine that has python3 (3.11 or newer), pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.medcli-installed
DEMO ?= runs/demo
JOBS ?= 2

.PHONY: demo test test-all bench check generate clean

$(STAMP): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit("medcli needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]' $(foreach plugin,$(wildcard plugins/*/pyproject.toml),--editable $(dir $(plugin)))
	@touch $@

demo: $(STAMP)
	$(BIN)/medcli train resnet18 --data synthetic/chest --image-size 64 --arch-opt stem=small --in-channels 1 --limit 400 --epochs 6 --batch-size 32 --out $(DEMO) --overwrite --yes
	$(BIN)/medcli evaluate $(DEMO)
	@echo "report: $(DEMO)/evaluation.txt   figures: $(DEMO)/evaluation.json   curves and confusion matrix: $(DEMO)/plots/"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n $(JOBS)

test-all: check
	$(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow"

bench: $(STAMP)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/memory.py

generate: $(STAMP)
	$(BIN)/python -m medcli.architectures.generate_names

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
