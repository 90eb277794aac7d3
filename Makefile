# What a person types here. Each target prepares what it needs, and does that again only after
# pyproject.toml changed. `make test PYTHON=python3.12` uses another Python, in a venv of its own.

PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# Absolute, since a daemon changes its directory before it writes what it covered; and out of the
# way, since each of some thousand processes writes a file of its own.
COVERED := $(CURDIR)/$(VENV)/covered
# What the tests marked `real` are held against, each by the program it is needed for.
DEBIAN_PACKAGES := strace systemd-container mmdebstrap s6 libsystemd0 util-linux

# Fewer of them, while one thing is being changed: make test TESTS=tests/plan
TESTS ?= tests

# Set by some callers for themselves: each start would compile forkfirst anew, and be measured so.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

.PHONY: help run test coverage test-real lint format types docs docs-generated bench clean

help:
	@echo "make run        start, reload and stop a demonstration service, from nothing"
	@echo "make test       every test that needs neither root nor Debian's packages"
	@echo "make coverage   the same, and which branches they took, through every fork"
	@echo "make test-real  the rest: real service managers, injected faults, many rounds"
	@echo "make lint types docs bench format clean"

# -- a virtual environment, and what was put into it ------------------------------------------

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "forkfirst needs Python 3.11 or newer; say PYTHON=/path/to/one" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "cannot make $(VENV); Debian has venv in the package python3-venv" >&2; exit 1; }
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.has-run: pyproject.toml $(VENV)/.made
	@$(PIP) --editable .
	@touch $@

$(VENV)/.has-test: pyproject.toml $(VENV)/.made
	@$(PIP) --group test --editable .
	@touch $@ $(VENV)/.has-run

# The libraries whose threads and loops the corpus of process states is about.
$(VENV)/.has-corpus: tests/guard/corpus/requirements.txt $(VENV)/.has-test
	@$(PIP) --requirement $< || echo "what the corpus needs cannot all be installed" >&2
	@touch $@

# Servers and frameworks that are too heavy for the quick tests.
$(VENV)/.has-servers: tests/serve/requirements.txt $(VENV)/.has-test
	@$(PIP) --requirement $< || echo "the servers cannot all be installed" >&2
	@touch $@

$(VENV)/.has-lint: pyproject.toml $(VENV)/.has-test
	@$(PIP) --group lint
	@touch $@

$(VENV)/.has-docs: pyproject.toml $(VENV)/.has-run
	@$(PIP) --group docs
	@touch $@

# Not editable: what is measured is what a person installs.
BENCH := .venv-bench$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BENCH_PIP := $(BENCH)/bin/python -m pip install -qq --disable-pip-version-check

$(BENCH)/.has-peers: pyproject.toml
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH_PIP) --upgrade 'pip>=25.1'
	@$(BENCH_PIP) --group bench .
	@if command -v npm >/dev/null; then npm install --silent --no-save \
	  --prefix $(BENCH)/npm pm2 >/dev/null 2>&1 || echo "npm cannot install pm2" >&2; fi
	@touch $@

$(BENCH)/.has-bench: $(BENCH)/.has-peers $(shell find src -name '*.py')
	@$(BENCH_PIP) --force-reinstall --no-deps .
	@touch $@

# -- what to do with it -------------------------------------------------------------------------

run: $(VENV)/.has-run
	@$(BIN)/python examples/demo.py

test: $(VENV)/.has-test
	@$(BIN)/python -m pytest --numprocesses 2 -m "not real and not slow" $(TESTS)

# Apart from `test`: a tracer in every child makes the same tests take three times as long.
# Branch coverage through forks, `os._exit` and subprocesses (see [tool.coverage.run]).
coverage: export COVERAGE_FILE := $(COVERED)/data
coverage: $(VENV)/.has-test
	@rm -rf $(COVERED) && mkdir $(COVERED)
	@$(BIN)/coverage run -m pytest --numprocesses 2 -m "not real and not slow" $(TESTS); \
	  status=$$?; $(BIN)/coverage combine --quiet \
	  && $(BIN)/coverage report > $(COVERED)/report.txt; tail -n 3 $(COVERED)/report.txt | head -n 1; \
	  echo "what was not covered: $(VENV)/covered/report.txt"; exit $$status

# 5 is pytest's status for "no test was selected".
test-real: $(VENV)/.has-test $(VENV)/.has-corpus $(VENV)/.has-servers
	@if [ "$$(id -u)" != 0 ]; then \
	  echo "test-real: not root, so no Debian package is installed; what needs one is skipped"; \
	elif ! command -v apt-get >/dev/null; then \
	  echo "test-real: no apt-get here; what needs a Debian package is skipped"; \
	else .ci/install-debian-packages $(DEBIAN_PACKAGES); fi
	@$(BIN)/python -m pytest -m "real or slow" --timeout 600 $(TESTS) || [ $$? = 5 ]

lint: $(VENV)/.has-lint
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

format: $(VENV)/.has-lint
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

types: $(VENV)/.has-lint
	@$(BIN)/mypy
	@$(BIN)/python .ci/check-public-types

# A robot does not write the pages that somebody forgot: it says which.
docs-generated: $(VENV)/.has-run
	@$(BIN)/python docs/generate $(if $(CI),--check)

docs: $(VENV)/.has-docs docs-generated
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(BENCH)/.has-bench
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  .ci/install-debian-packages strace daemonize wrk; fi
	@$(BENCH)/bin/python benchmarks/start.py
	@$(BENCH)/bin/python benchmarks/spawn.py
	@$(BENCH)/bin/python benchmarks/serve.py
	@$(BENCH)/bin/python benchmarks/reload.py
	@$(BENCH)/bin/python benchmarks/supervisors.py
	@$(BENCH)/bin/python benchmarks/workers.py

clean:
	rm -rf .venv .venv-* site build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
