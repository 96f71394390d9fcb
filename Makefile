# Two commands do everything on a fresh machine with Python 3.11-3.13: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= demo-output
TORCH  ?= 1
# One process more than cores: some tests wait.
JOBS   ?= 3
BIN    := $(VENV)/bin
# One thread per process, no window, and the programs that tests compare with (dcmqi, the BIDS validator) on the path.
# Compiled modules are kept, whatever the machine says: many tests start processes.
PYTEST := PATH="$(abspath $(BIN)):$$PATH" PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen \
          $(BIN)/python -m pytest
# Real data beyond the embedded ones are used where present.
ifneq ($(wildcard ../shared/data),)
export DISC_SHARED_DATA ?= $(abspath ../shared/data)
endif
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test tests coverage mutants viewer lint train train-grades evaluate benchmark tables docs cmake-lists clean

demo: $(VENV)/.cohort ## real people, from pixels to the report
	$(BIN)/python -m DiscStudyLib.demo --output $(OUT)

test: $(VENV)/.test ## everything CI runs; SLOW=1 adds the slow tests, TORCH=0 leaves torch (and its tests) out
	@$(MAKE) --no-print-directory -j2 lint tests

tests: $(VENV)/.test
	$(PYTEST) -n $(JOBS) $(if $(SLOW),,-m "not slow") $(ARGS)

coverage: $(VENV)/.test ## lines that the tests reach; fails below the floor in pyproject.toml
	$(PYTEST) -n $(JOBS) -m "not slow" --cov --cov-report=term:skip-covered $(ARGS)

mutants: $(VENV)/.test ## deliberate mistakes, one at a time, and whether a test notices each
	$(BIN)/python -m Testing.tools.mutants $(ARGS)

viewer: $(VENV)-viewer/.viewer ## Slicer's own views in the review, in an environment of their own
	$(<D)/bin/python -m pytest Testing/unit/review/test_viewer.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python Testing/benchmarks/tables.py --check

train: $(VENV)/.training ## ARGS="--folds 0"; see Training/README.md
	$(BIN)/python -m Training.train $(ARGS)

train-grades: $(VENV)/.training ## outlines, features, cross-validation, weights of the grading network; resumes
	OMP_NUM_THREADS=1 $(BIN)/python Testing/benchmarks/grades_tables.py $(ARGS)

evaluate: $(VENV)/.training
	$(BIN)/python -m Training.evaluate $(ARGS)
	$(BIN)/python Testing/benchmarks/segmentation_tables.py

benchmark: $(VENV)/.test ## NAME=bench_fitting ARGS="--quick"; results go to Testing/benchmarks/results
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python Testing/benchmarks/$(NAME).py $(ARGS)

tables: ## the tables of Docs/validation, from those results
	$(PYTHON) Testing/benchmarks/tables.py

docs: $(VENV)/.docs ## API reference and guides as HTML, in Docs/_build/html
	rm -rf Docs/_api
	$(BIN)/sphinx-build -q -W --keep-going -b html Docs Docs/_build/html

cmake-lists: ## after a file was added or removed
	$(PYTHON) Testing/tools/update_cmake_lists.py

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('DiscRelaxometry needs Python 3.11 or newer: make PYTHON=python3.12' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.cohort: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e ".[cohort,headless]"
	touch $@

$(VENV)/.test: $(VENV)/.cohort
	$(PIP) -e ".[test$(if $(filter 1,$(TORCH)),$(comma)training)]"
	touch $@

$(VENV)-viewer/.viewer: pyproject.toml
	$(PYTHON) -m venv $(VENV)-viewer
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet -e ".[viewer]" pytest pytest-xdist pytest-timeout \
	  hypothesis
	touch $@

$(VENV)/.training: $(VENV)/.cohort
	$(PIP) -e ".[training]"
	touch $@

$(VENV)/.docs: $(VENV)/.cohort
	$(PIP) -e ".[docs]"
	touch $@

comma := ,

clean:
	rm -rf $(VENV) $(VENV)-viewer $(OUT) build dist Docs/_build Docs/_api
