# Two commands do everything on a fresh machine: `make report` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a report needs, and on top of it what the tests need: each is installed once, and again when the files change
# that say what it is. Modules are compiled as they are imported, which saves more than it costs.
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_DOCS := $(VENV)/.ready-docs
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt --editable

# Tests start dozens of interpreters: what they import is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test nightly lint report docs orders words known bench gpu derivations clean

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

nightly: lint $(READY_DOCS)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nightly

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

report: $(READY)
	$(BIN)/weakorder report -o report

# The site: docs/_build/html/index.html.
docs: $(READY_DOCS)
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs docs/_build/html

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

# Of k-diffusion its samplers are tested, without what its training needs.
$(READY_DEV): $(READY)
	$(INSTALL) '.[dev]'
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile --no-deps --constraint constraints.txt k-diffusion
	touch $@

$(READY_DOCS): $(READY)
	$(INSTALL) '.[docs]'
	touch $@

# Peers are installed here and nowhere else.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/benchmarks/throughput.py --peers --json bench.json
	$(BIN)/python tests/benchmarks/verdicts.py
	$(BIN)/python tests/benchmarks/algebra.py --clock wall
	$(BIN)/python tests/benchmarks/scaling.py -o scaling

gpu: $(READY_DEV)
	$(BIN)/python tests/benchmarks/gpu $(or $(OUT),gpu-results) $(if $(DATA),--data $(DATA)) $(if $(TEST),--test $(TEST))

orders: $(READY)
	$(BIN)/python -m weakorder.reports.pages.orders docs/gallery/orders.md

words: $(READY_DEV)
	$(BIN)/python -m weakorder.reports.pages.words docs/gallery/words.md

known: $(READY_DEV)
	$(BIN)/python -m weakorder.reports.pages.known docs/gallery/known.md

derivations: $(READY)
	$(BIN)/python -m weakorder.integrators.make_derivations

clean:
	rm -rf $(VENV) build dist report docs/_build docs/gallery/schemes docs/reference/api *.egg-info
