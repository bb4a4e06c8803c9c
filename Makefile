# Every target makes .venv and installs what it needs, at the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
# Tests wait more than they work: two more of them at once than there are cores is no load.
JOBS ?= 4
# One test at a time goes to whoever is free. A process of tests that dies fails its test, is replaced, and the others go
# on; `--dist loadgroup` waits without end then (pytest-xdist #1378), and forms no groups with pytest 9.2 (#1386).
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist load --maxschedchunk 1
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-kafka demo-sqs demo-servicebus demo-eventhubs test trials soak brokers check bench format servers lock clean

help: ## Show this list
	@echo "make TARGET [PYTHON=python3.12], where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

demo: .venv/.demo ## Classify handwritten digits through an embedded broker
	$(BIN)/python examples/digits/demo.py

demo-kafka: .venv/.dev ## The same through Apache Kafka, on a real broker (needs Java and Maven)
	$(BIN)/python examples/digits/demo_kafka.py

demo-sqs: .venv/.dev ## The same through Amazon SQS, on a local server (needs Java and Maven)
	$(BIN)/python examples/digits/demo_sqs.py

demo-servicebus: .venv/.dev ## The same through Azure Service Bus, on the tests' stand-in
	$(BIN)/python examples/digits/demo_servicebus.py

demo-eventhubs: .venv/.dev ## The same through Azure Event Hubs, on the tests' stand-in
	$(BIN)/python examples/digits/demo_eventhubs.py

test: servers ## Run the tests that are quick
	$(PYTEST) -m "not trial"

trials: servers ## Run the tests that take long: kills, storms, broken networks, soaks
	$(PYTEST) -m trial

soak: .venv/.dev ## Kill processes while they work on a million messages, and prove the results complete
	$(BIN)/python -m pytest -s -m trial tests/runner/test_soak.py

brokers: servers ## Of both, run what needs Kafka, ElasticMQ or the AMQP stand-in
	$(PYTEST) -m broker

servers: .venv/.dev
	@PYTHONPATH=tests $(BIN)/python -m servers.fetch

check: .venv/.dev ## Check formatting, lint, types, and that imports go one way
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict src tests/typing
	$(BIN)/basedpyright tests/typing
	$(BIN)/python -m pytest tests/test_floors.py

bench: .venv/.dev ## Run every benchmark, one after another
	@set -e; for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(BIN)/python "$$benchmark"; \
	done

format: .venv/.dev ## Format the code, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: .venv/bin/pip ## Write constraints.txt anew, from the newest versions
	rm -rf .venv/lock
	$(BIN)/python -m venv .venv/lock
	.venv/lock/bin/python -m pip --disable-pip-version-check --no-input install --quiet --editable '.[dev]'
	.venv/lock/bin/python -m pip freeze --exclude-editable > .venv/lock/constraints.txt
	mv .venv/lock/constraints.txt constraints.txt
	rm -rf .venv/lock

clean: ## Remove what the tools left behind, .venv excepted
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests examples benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# pip is the last thing venv installs: where it is, the environment is whole.
.venv/bin/pip:
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "eventflows needs Python 3.11 or newer, and '$(PYTHON)' was not found; try make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "eventflows needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1); try make PYTHON=python3.11" >&2; \
		exit 1; }
	@"$(PYTHON)" -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing eventflows and scikit-learn into .venv"
	@$(PIP) install --quiet --constraint constraints.txt --editable . scikit-learn joblib
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing eventflows and its development tools into .venv"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
