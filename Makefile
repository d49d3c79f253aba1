# `make demo` shows the product, `make test` proves it, `make check` keeps the code in order,
# `make compare` trains the multi-head model beside the flat one, `make bench` measures speed.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check format compare bench clean

demo: .venv/user
	$(BIN)/multihead demo --output runs/demo

test: .venv/dev
	$(BIN)/python -m pytest -n 2

check: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the multi-head model against the flat one: drawn people, or DATA="--data INDEX.csv --pretrained-path FILE ..."
compare: .venv/user
	$(BIN)/python benchmarks/heads_vs_flat.py $(DATA)

# every benchmark of speed: DATA="--data DIR --pretrained-path FILE --yunet FILE"; on an idle machine
bench: .venv/dev
	$(BIN)/python benchmarks/bench.py $(DATA)

.venv/user: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/dev: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/user

clean:
	rm -rf .venv build *.egg-info runs
