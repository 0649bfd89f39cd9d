# The two commands to know: `make run` and `make test`. They need Python 3.11 or later, nothing else;
# everything is installed into .venv, and only again when pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_TESTS := tests/clients/js
PEER := .venv-peer
PEER_PACKAGES := tests/federation/peer-packages.txt
BRIDGE := .venv-bridge
BRIDGE_PACKAGES := tests/clients/bridges/bridge-packages.txt
PEBBLE := .pebble
PEBBLE_VERSION := v2.10.3
# The tests wait for databases, sockets and clocks for half of their time: more of them than cores run at once.
WORKERS := $(shell $(PYTHON) -c "import os; print(max(3, os.cpu_count() or 1))")
# In the order of tests/conftest.py.
PYTEST_OPTIONS ?= -n $(WORKERS) --dist loadscope --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

.PHONY: run test lint types contracts unit interop coverage format bench config-docs conformance docs clean

# exec, so that Ctrl-C is the server's alone and make has nothing to say of it.
run: $(VENV)/.installed
	@exec $(BIN)/homeserver run

# What is wrong with types is shown among the dots of the tests.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 types unit

lint: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-for-tests
	$(BIN)/mypy

contracts: $(VENV)/.installed-for-tests
	$(BIN)/lint-imports

unit: $(VENV)/.installed-for-tests
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m "not interop"

# Slower: with real clients and with another homeserver, as processes. What fails is tried once more:
# in the peer, too, things happen in an order of their own. What fails twice is a fault.
interop: $(VENV)/.installed-for-tests node-packages peer bridge pebble
	$(BIN)/python -m pytest -n 2 --dist loadscope -m interop \
		|| $(BIN)/python -m pytest -m interop --last-failed --last-failed-no-failures none

# As `make unit`; build/coverage/index.html shows the lines and branches that no test runs.
coverage: $(VENV)/.installed-for-tests
	$(BIN)/coverage erase
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) -m "not interop" --cov --cov-report=html
	@echo "Tests run $$($(BIN)/coverage report --format=total) % of the lines and branches;" \
		"build/coverage/index.html shows the rest."

format: $(VENV)/.installed-for-tests
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-for-tests
	$(BIN)/python -m benchmarks

config-docs: $(VENV)/.installed
	$(BIN)/python tools/config_docs.py

conformance: $(VENV)/.installed
	$(BIN)/python tools/conformance.py

# The documents as a site, in build/site; a broken link is an error (with --quiet it would be none).
docs: $(VENV)/.installed-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "To read it: $(BIN)/python -m http.server --directory build/site"

clean:
	rm -rf $(VENV) $(PEER) $(BRIDGE) $(PEBBLE) build dist *.egg-info $(NODE_TESTS)/node_modules \
		$(NODE_TESTS)/bridges/node_modules
	rm -rf .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Tests with a JavaScript client run where Node is installed, and are skipped elsewhere.
.PHONY: node-packages
node-packages:
	@if ! command -v npm >/dev/null; then \
		echo "Node is not installed: the tests with JavaScript clients are skipped"; \
	else for folder in $(NODE_TESTS) $(NODE_TESTS)/bridges; do \
		[ $$folder/node_modules/.package-lock.json -nt $$folder/package-lock.json ] \
			|| (cd $$folder && npm ci --no-audit --no-fund) \
			|| echo "npm ci failed: the tests with JavaScript clients are skipped"; \
	done; fi

# The homeserver of another make that tests of federation talk to, where it can be installed. It has an
# environment of its own, as its dependencies are not ours.
.PHONY: peer
peer:
	@if [ ! $(PEER)/.installed -nt $(PEER_PACKAGES) ]; then \
		{ $(PYTHON) -m venv $(PEER) \
			&& $(PEER)/bin/pip install --quiet --requirement $(PEER_PACKAGES) \
			&& touch $(PEER)/.installed; } \
			|| { rm -f $(PEER)/.installed; \
				echo "The peer cannot be installed: the tests of federation with it are skipped"; }; \
	fi

# A bridge to IRC has an environment of its own, too: it needs an older mautrix than other tests.
.PHONY: bridge
bridge:
	@if [ ! $(BRIDGE)/.installed -nt $(BRIDGE_PACKAGES) ]; then \
		{ $(PYTHON) -m venv $(BRIDGE) \
			&& $(BRIDGE)/bin/pip install --quiet --requirement $(BRIDGE_PACKAGES) \
			&& touch $(BRIDGE)/.installed; } \
			|| { rm -f $(BRIDGE)/.installed; \
				echo "The bridge cannot be installed: the tests with it are skipped"; }; \
	fi

# The ACME server that tests of certificates order from.
.PHONY: pebble
pebble:
	@if ! command -v go >/dev/null; then \
		echo "Go is not installed: the tests with an ACME server are skipped"; \
	elif [ ! -e $(PEBBLE)/$(PEBBLE_VERSION) ]; then \
		{ GOBIN=$(CURDIR)/$(PEBBLE) go install \
			$(addprefix github.com/letsencrypt/pebble/v2/cmd/,$(addsuffix @$(PEBBLE_VERSION),pebble pebble-challtestsrv)) \
			&& touch $(PEBBLE)/$(PEBBLE_VERSION); } \
			|| echo "Pebble cannot be installed: the tests with an ACME server are skipped"; \
	fi

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; try make PYTHON=python3.11"; exit 1; }
	@echo "Making a Python environment in $(VENV)."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "The environment cannot be made; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the server and what it needs into $(VENV); this can take a minute or two."
	@$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-for-tests: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the server, what it needs, and the tools for its tests into $(VENV); this takes minutes."
	@$(BIN)/pip install --quiet --editable '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-for-docs: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the tools that build the site into $(VENV)."
	@$(BIN)/pip install --quiet --editable '.[docs]'
	@touch $(VENV)/.installed $@
