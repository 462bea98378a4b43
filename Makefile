# Every target creates what it needs: a virtual environment in .venv with this package in it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One thread per process: two processes with two threads each hinder each other on two cores. The tests of a file run in
# one process, so that what they share is made once; long files first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
CORE := tests/text tests/vision tests/backbones tests/test_torch_model.py tests/test_transformer.py

.DEFAULT_GOAL := help
.PHONY: help demo page browser-runtime report figures figures-check adaptors test test-rest test-all test-oldest test-lowest \
  test-wheel lint docs dist release-check constraints types clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## Find defects in generated parts, offline; writes a table, a picture and a page to demo/
	$(BIN)/anomalib-clipad demo --output demo

page: $(INSTALLED)  ## Write a page that looks at images by itself, with generated parts to try, to page/
	$(BIN)/python -m anomalib_clipad.lab web-page-demo page

browser-runtime: $(INSTALLED)  ## Fetch the files of onnxruntime-web anew, with npm
	$(BIN)/python -m anomalib_clipad.lab browser-runtime

report: $(INSTALLED)  ## Benchmark the generated parts and report the metrics in report/
	rm -rf report && mkdir report
	cd report && ../$(BIN)/anomalib benchmark --config ../configs/benchmark/generated_parts.yaml
	$(BIN)/anomalib-clipad report report/runs/benchmark/*/results.csv --output report

NAMES :=
figures: $(INSTALLED)  ## Run the commands of the measured tables and rewrite these; hours; NAMES='[mini-card]' for some
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m anomalib_clipad.lab figures $(if $(NAMES),--names '$(NAMES)')

figures-check: $(INSTALLED)  ## List measured tables that are not of the shipped weights, and numbers of unknown origin
	$(BIN)/python -m anomalib_clipad.lab figures --check

adaptors: $(INSTALLED)  ## Train all variants with layers on generated parts and compare them; an hour, goes on where it stopped
	OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m anomalib_clipad.lab adaptors

test: $(INSTALLED)  ## Run the tests of every room, in minutes
	$(PYTEST) -m "not slow"

test-rest: $(INSTALLED)  ## Run the tests that `make test` leaves out: exports, clusters, browsers, whole commands
	$(PYTEST) -m slow

test-all: $(INSTALLED)  ## Run all tests
	$(PYTEST)

test-oldest: $(INSTALLED)  ## Test the core against the oldest supported open_clip
	$(BIN)/pip install --quiet --no-deps --target .venv/oldest open_clip_torch==2.24.0
	OMP_NUM_THREADS=1 PYTHONPATH=.venv/oldest $(BIN)/python -m pytest $(CORE)

test-lowest: $(INSTALLED)  ## Test the core against the lowest versions in pyproject.toml (a second environment, GBs)
	$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip install --python .venv-lowest --resolution lowest-direct --editable . 'pytest>=8' 'setuptools>=77'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest $(CORE)

lint: $(INSTALLED)  ## Check style, declared dependencies, the direction of imports, tables of options and of figures
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/python -m anomalib_clipad.lab option-tables --check
	$(BIN)/python -m anomalib_clipad.lab figures --check
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

docs: $(INSTALLED)  ## Build the documentation site in build/docs/; a broken link fails
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

test-wheel:  ## Try the wheel as a stranger does: an empty environment, without the repository (a second environment, GBs)
	rm -rf build/wheel .venv-wheel && $(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip install --quiet --upgrade pip
	.venv-wheel/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	.venv-wheel/bin/pip install --quiet "$$(ls $(CURDIR)/build/wheel/*.whl)[export,playground]" 'nbmake>=1.5' 'pytest>=8'
	place=$$(mktemp -d) && cp README.md docs/examples/quickstart.ipynb tests/stranger/test_wheel.py $$place && cd $$place && \
	  env -u PYTHONPATH $(CURDIR)/.venv-wheel/bin/python -m pytest -q --nbmake test_wheel.py quickstart.ipynb

dist: $(INSTALLED)  ## Build wheel and source archive in dist/, twice, and check that both are identical and the wheel without lab/
	rm -rf dist build/again && mkdir -p build
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist . >/dev/null
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir build/again . >/dev/null
	cd dist && for file in *; do cmp $$file ../build/again/$$file; done
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	! $(BIN)/python -m zipfile -l dist/*.whl | grep anomalib_clipad/lab/

release-check: dist  ## Check what a release needs, files and all (docs/releasing.md)
	$(BIN)/python .ci/release.py

constraints: $(INSTALLED)  ## Write constraints.txt: the versions of the test environment
	$(BIN)/pip freeze --exclude-editable --exclude pip | grep -v '@ file' > constraints.txt

types: $(INSTALLED)  ## Check types
	$(BIN)/mypy

clean:  ## Remove the virtual environment and everything written
	rm -rf .venv .venv-lowest .venv-wheel demo page report results runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
