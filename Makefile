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
	$(BIN)/medcli train resnet18 --data synthetic/chest --image-size 96 --in-channels 1 --epochs 12 --lr 2e-3 --scheduler onecycle --out $(DEMO) --overwrite --yes
	$(BIN)/medcli calibrate $(DEMO)
	$(BIN)/medcli explain $(DEMO) --save 4
	$(BIN)/medcli finetune $(DEMO) --strategy frozen --data synthetic/chest --task multilabel --epochs 20 --out $(DEMO)-adapted --overwrite --yes
	$(BIN)/medcli export $(DEMO) --format onnx --out $(DEMO)-bundle --overwrite
	$(BIN)/medcli diffmap synth --pairs 6 --image-size 256 --out $(DEMO)-pairs --overwrite --yes
	$(BIN)/medcli diffmap predict $(DEMO)-pairs/p00001/pair_0/prior.png $(DEMO)-pairs/p00001/pair_0/current.png --out $(DEMO)-change --overwrite
	$(BIN)/medcli report $(DEMO)
	@echo
	@echo "report:           $(DEMO)/report.html (open it in a browser)"
	@echo "what changed:     $(DEMO)-change/sheet.png"
	@echo "exported model:   $(DEMO)-bundle (README.md inside)"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-all: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "slow or not slow"

bench: $(STAMP)
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/training.py
	$(BIN)/python bench/frozen.py
	$(BIN)/python bench/memory.py
	$(BIN)/python bench/plugins.py
	$(BIN)/python bench/evaluation.py
	$(BIN)/python bench/lora.py
	$(BIN)/python bench/mc_dropout.py
	$(BIN)/python bench/export.py
	$(BIN)/python bench/predict.py
	$(BIN)/python bench/diffmap_memory.py run
	$(BIN)/python bench/diffmap_predict.py

generate: $(STAMP)
	$(BIN)/python -m medcli.architectures.generate_names
	$(BIN)/python plugins/card_reference.py
	$(BIN)/python -m medcli.cli.manual man
	cp medcli/cli/shells/medcli.bash medcli/cli/shells/_medcli medcli/cli/shells/medcli.fish medcli/cli/shells/medcli.ps1 completions/

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
