# Two commands do everything on a fresh machine: `make report` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: test nightly lint report bench gpu readme clean

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

nightly: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nightly

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

report: $(READY)
	$(BIN)/weakorder report -o report

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

bench: $(READY)
	$(BIN)/python tests/benchmarks/throughput.py

gpu: $(READY)
	$(BIN)/python tests/benchmarks/gpu $(or $(OUT),gpu-results) $(if $(DATA),--data $(DATA)) $(if $(TEST),--test $(TEST))

readme: $(READY)
	$(BIN)/python -m weakorder.reports.pages.orders README.md

clean:
	rm -rf $(VENV) build dist report *.egg-info
