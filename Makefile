# make env         .venv with the packages pinned in constraints.txt (once, and again when a pin or setup.py changes)
# make reproduce   run every stage that is not up to date: PROFILE=smoke|small|paper, ARGS="--stage 30_ladder_training"
# make test        everything that CI runs
# make notebooks   run the library notebooks in place and save their outputs: NB=nbs/api/12_render.ipynb for one
# make readme      README.md from nbs/index.ipynb
# make clean       remove what building leaves behind (never runs/, never .venv)

PYTHON ?= python3
PROFILE ?= smoke
ARGS ?=
NB ?= $(wildcard nbs/api/*.ipynb nbs/tour/*.ipynb)

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help env reproduce test lint library unit notebooks readme clean

help:
	@sed -n 's/^# make /make /p' Makefile

env: $(INSTALLED)

$(INSTALLED): setup.py settings.ini pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit("$(PYTHON) is Python %d.%d, wants 3.11 or later: make PYTHON=python3.12 ..." % v if v < (3, 11) else 0)'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing the pinned packages into .venv: about 2 GB and a few minutes, only this once."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

reproduce: env
	@$(BIN)/spatial-nb reproduce --profile $(PROFILE) $(ARGS)

test: lint library unit

lint: env
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check . || (echo "not formatted, see above: .venv/bin/ruff format ." && false)

# Every notebook but the stages, which run in `make reproduce`. One thread each: two run at a time.
library: env
	@OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2

unit: env
	@$(BIN)/python -m pytest -q -m "not slow"

# A bar that is still there when its cell ends would be saved with the outputs.
notebooks: env
	@SPATIAL_NB_PROGRESS=/dev/null $(BIN)/jupyter nbconvert --to notebook --execute --inplace --log-level=WARN --ExecutePreprocessor.extra_arguments=--log-level=ERROR $(NB)
	@for nb in $(NB); do $(BIN)/nbdev_clean --fname $$nb; done

readme: env
	@$(BIN)/python .ci/readme.py

clean:
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	@find nbs spatial_nb tests -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
