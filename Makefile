# `make run` and `make test` do all set-up themselves, once, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns of every editable install from a folder that holds the package
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check
DATA := $(if $(SOURCE),--source $(SOURCE))
DATASET_OPTION := $(if $(SOURCE),--dataset $(basename $(notdir $(SOURCE))))
SETUP := settings.ini setup.py pyproject.toml constraints.txt
NOTEBOOKS := $(wildcard nbs/*.ipynb) $(wildcard reports/*.ipynb)

# results of `make run` go where git ignores them; `make results` writes those that are committed
LOCAL_RESULTS := MOVIEREC_RESULTS_DIR="$(CURDIR)/reports/local-results"
WORKERS := -n auto --maxprocesses 4

.PHONY: help run results api app test test-fast test-extras neural bench bench-ann bench-run bench-serve bench-wide lint types export check notebooks readme site clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else f"movierec needs Python 3.11 to 3.13, not {sys.version.split()[0]}: make PYTHON=/path/to/python3.12")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(SETUP)
	@echo "Installing movierec into $(VENV) (once, about a minute) ..."
	@$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python $(SETUP)
	@echo "Installing movierec and its development tools into $(VENV) (once, a minute or two) ..."
	@$(PIP) install -q -c constraints.txt -e '.[app,dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-app

run: $(VENV)/.installed ## the whole pipeline on the bundled data
	@$(LOCAL_RESULTS) $(BIN)/movierec run

results: $(VENV)/.installed ## renew the committed results in reports/results, of the bundled data or SOURCE=ml-1m.zip
	$(BIN)/movierec run $(DATA)
	$(BIN)/movierec compare --protocol leave-last-out --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol leave-last-out --ties random $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol leave-last-out --ties random --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol global-time --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol global-next --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol global-next --relevant all --ties random $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol global-next-last --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol strong-generalization $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol cold-items $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol cold-items --relevant all $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol cold-items-only $(DATASET_OPTION)
	$(BIN)/movierec compare --protocol cold-items-only --relevant all $(DATASET_OPTION)
	$(BIN)/movierec diff --a hybrid --b ranked_v3 $(DATASET_OPTION)
	$(BIN)/movierec backtest $(DATASET_OPTION)
	$(BIN)/movierec backtest --sources $(DATASET_OPTION)
	$(BIN)/movierec ablate --protocol global-time $(DATASET_OPTION)
	$(BIN)/movierec ablate --protocol leave-last-out $(DATASET_OPTION)

$(VENV)/.installed-app: $(BIN)/python $(SETUP)
	@echo "Installing movierec and what serving needs into $(VENV) ..."
	@$(PIP) install -q -c constraints.txt -e '.[app]'
	@touch $@ $(VENV)/.installed

# nothing is evaluated for these two: `make run` does that, from where they have stopped
api: $(VENV)/.installed-app ## the REST API over the bundled data, on http://127.0.0.1:8000
	@$(BIN)/movierec run --serving-only
	@$(BIN)/movierec api

app: $(VENV)/.installed-app ## the page of recommendations over the bundled data, on http://127.0.0.1:8866, with the API behind it
	@$(BIN)/movierec run --serving-only
	@$(BIN)/movierec app

test: $(VENV)/.installed-dev ## all tests, fast ones first, then whole runs and all notebooks
	$(BIN)/pytest $(WORKERS)

test-fast: $(VENV)/.installed-dev ## the fast tests only
	$(BIN)/pytest $(WORKERS) -m "not slow"

test-extras: $(VENV)/.installed-neural ## the tests that need an extra or a browser, which `make test` skips where it is missing
	$(BIN)/pytest $(WORKERS) -m extra

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@$(PIP) install -q -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/.installed-neural: $(VENV)/.installed-dev
	@echo "Installing PyTorch, FAISS and Optuna into $(VENV) ..."
	@$(PIP) install -q -c constraints.txt -e '.[neural,tune]'
	@touch $@

neural: $(VENV)/.installed-neural ## install the extras that the neural source (PyTorch for CPUs is enough) and `movierec tune` need

bench: $(VENV)/.installed-bench ## time and memory beside other libraries, on a synthetic archive (SCALE=1: twenty million ratings)
	@SCALE=$(or $(SCALE),0.05) RESULTS=$(RESULTS) $(BIN)/python tests/bench.py
	@SCALE=$(or $(SCALE),0.05) RESULTS=$(RESULTS) $(BIN)/python tests/bench_run.py
	@SCALE=$(or $(SCALE),0.05) RESULTS=$(RESULTS) $(BIN)/python tests/bench_wide.py

bench-run: $(VENV)/.installed-bench ## time and memory of a whole run, on a synthetic archive (SCALE) or SOURCE=ml-1m.zip; MEMORY=4GB limits it, PROTOCOL=global-time is half of it, AGAINST=/other/.venv/bin/movierec runs first
	@SOURCE=$(SOURCE) SCALE=$(SCALE) MEMORY=$(MEMORY) PROTOCOL=$(PROTOCOL) AGAINST=$(AGAINST) RESULTS=$(RESULTS) $(BIN)/python tests/bench_run.py

bench-wide: $(VENV)/.installed-bench ## time and memory of runs over many items (SCALE=1: 300,000), and over movies without ratings
	@SCALE=$(SCALE) PROTOCOL=$(PROTOCOL) RESULTS=$(RESULTS) $(BIN)/python tests/bench_wide.py

bench-serve: $(VENV)/.installed-bench ## time, memory and load of the API, on a synthetic archive or SOURCE=ml-1m.zip (needs wrk)
	@SOURCE=$(SOURCE) SCALE=$(SCALE) REQUESTS=$(REQUESTS) RESULTS=$(RESULTS) $(BIN)/python tests/bench_serve.py

bench-ann: $(VENV)/.installed-neural ## time the approximate search beside the exact one, on random vectors
	@RESULTS=$(RESULTS) $(BIN)/python tests/bench_ann.py

lint: $(VENV)/.installed-dev ## ruff over package, notebooks and tests
	$(BIN)/ruff check .

export: $(VENV)/.installed-dev ## clean the notebooks and export them to movierec/
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean --fname reports
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_export

types: $(VENV)/.installed-dev ## mypy over the package
	$(BIN)/mypy

check: lint types ## ruff; mypy; notebooks clean, export and README in step, pages and links in order; lengths of cells
	$(BIN)/pytest tests/test_repo.py tests/test_site.py -m "not slow"
	@$(BIN)/python nbs/cell_stats.py

notebooks: $(VENV)/.installed-neural ## run all notebooks and store their outputs
	$(LOCAL_RESULTS) $(BIN)/jupyter nbconvert --log-level=ERROR --to notebook --execute --inplace $(NOTEBOOKS)
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_clean --fname reports

readme: $(VENV)/.installed-dev ## README.md from nbs/index.ipynb
	$(BIN)/python nbs/make_readme.py

site: $(VENV)/.installed-dev ## the report site in _docs (needs Quarto)
	@command -v quarto >/dev/null || { echo "Quarto isn't installed. Get it from https://quarto.org/docs/get-started/ (or: pip install quarto-cli), then run make site again."; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" quarto render

# ui_feedback.jsonl: the log of an earlier version, until the API or the app has moved it to data/feedback
clean: ## remove what can be made again: environment, tables, models; posters and what users said (data/feedback) stay
	find data/processed -mindepth 2 -maxdepth 2 ! -name ui_feedback.jsonl ! -name posters ! -name item_posters.json -exec rm -rf {} + 2>/dev/null || true
	rm -rf $(VENV) reports/models reports/local-results _docs build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
