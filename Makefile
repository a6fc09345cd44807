# Two commands: `make demo` and `make test` (and `make docs`). They set up .venv first (once; again when the pins change).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
# The pinned versions need Python 3.11; an older one gets the newest versions that still run there.
PINS := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')

.PHONY: setup demo test lint docs linkcheck clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "FaceFoundry needs Python 3.10 or newer; $(PYTHON) is older. Use: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing into $(VENV) (a few minutes) ..."
	$(BIN)/python -m pip install --quiet $(PINS) -e .
	@touch $(STAMP)

# The tests try every extra, a Ray cluster and a stand-in for an object store included: some hundred megabytes the demo does without.
$(TEST_STAMP): $(STAMP)
	@echo "installing what the tests need ..."
	$(BIN)/python -m pip install --quiet $(PINS) -e '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1  # its own pins are of 2021 and contradict ours; it needs none of them here
	@touch $(TEST_STAMP)

demo: $(STAMP)
	$(BIN)/facefoundry demo

# One thread a process: the tests start processes of their own, and small networks gain nothing from threads. A file's tests stay in one process;
# the fault tests kill processes and wait on clocks, so they run alone.
TEST_WORKERS ?= 2
test: export OMP_NUM_THREADS = 1
test: export MKL_NUM_THREADS = 1
test: export NUMBA_NUM_THREADS = 1
test: $(TEST_STAMP)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --ignore tests/faults
	$(BIN)/python -m pytest tests/faults

lint: $(TEST_STAMP)
	$(BIN)/lint-imports

# The site, in build/docs; it can be read without a network. A warning is an error.
docs: $(TEST_STAMP)
	$(BIN)/python -m sphinx --builder html --conf-dir docs/site --doctree-dir build/doctrees --fail-on-warning --keep-going --quiet . build/docs
	@echo "written: build/docs/index.html"

# Every link to another site. Not a test: it needs a network, and a site that is down elsewhere is no fault of ours.
linkcheck: $(TEST_STAMP)
	$(BIN)/python -m sphinx --builder linkcheck --conf-dir docs/site --doctree-dir build/doctrees-pages --tag pages --quiet . build/linkcheck

clean:
	rm -rf $(VENV) build *.egg-info
