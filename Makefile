# `make demo` and `make test` are all that a fresh machine with python3 and make needs.
# `make VENV=DIR ...` uses, and fills, another environment.

VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
# One more than cores, because some tests wait for programs; a file of tests stays in one process.
TEST_WORKERS ?= $(shell n=$$(( $$(nproc) + 1 )); echo $$(( n < 8 ? n : 8 )))

BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# One stamp for each state of the dependencies and each place of this folder: a second call installs nothing.
STATE := $(shell { pwd; cat setup.cfg pyproject.toml; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(STATE)

# Tests and the programs that they start read bytecode, where it is, instead of compiling all sources again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-fast slow-tests viewers pictures lint install help

help:
	@echo "make demo   install into $(VENV) and go the whole way on generated images"
	@echo "make test   install into $(VENV) and run all tests"
	@echo "make test-fast   tests of single modules that are not slow: between two edits"
	@echo "make viewers   install silx and PyTables too and open shards in them; with Chromium, pages too, and with npm, H5Web"
	@echo "make pictures   draw the pictures of README and docs again"
	@echo "make lint   ruff and mypy"

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "No venv could be made; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (about 6 GB with PyTorch, a few minutes)"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/wsol-pipeline demo --out demo

test: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

test-fast: TEST_WORKERS = $(shell nproc)
test-fast: $(STAMP)
	$(PYTEST) -m "not slow" --ignore tests/integration --ignore tests/benchmarks --ignore tests/viewers $(PYTEST_ARGS)

# Times all tests and writes the list of those that test-fast leaves out.
slow-tests: $(STAMP)
	: > tests/slow_tests.txt
	$(PYTEST) --record-slow 0.3 $(PYTEST_ARGS)
	# Again without those: the first test that is left pays for a fixture that it shares with them.
	$(MAKE) test-fast PYTEST_ARGS="--record-slow 0.3"

viewers: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[viewers]'
	$(BIN)/python -m pytest tests/viewers $(PYTEST_ARGS)

# Every picture of README and docs; that of H5Web needs npm and Chromium.
pictures: $(STAMP)
	$(BIN)/python benchmarks/readme_picture.py --out docs/pictures/preview.jpg
	$(BIN)/python benchmarks/stage_pictures.py --out docs/pictures/stages.jpg
	$(BIN)/python -m tests.viewers.h5web_picture --out docs/pictures/h5web.png

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
