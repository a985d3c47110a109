# make demo: the main job, from nothing. make shipped: the network that comes with OcTrim, trained anew. make test: the tests and checks, from nothing. make check: the quick ones, about a minute.
PYTHON ?= python3
# Processes that run tests; auto: as many as there are cores, one more where slow tests, which wait, are among them.
WORKERS ?= auto
# Tests start hundreds of processes: where nobody keeps what Python compiles, each compiles OcTrim again.
unexport PYTHONDONTWRITEBYTECODE
ENV := .venv
PYTEST = $(ENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo shipped test check lint all-tests quick-tests clean

demo: $(ENV)/.demo
	$(ENV)/bin/octrim compress

# The demo without its games; docs/pong.md has the accuracy, tests/test_shipped.py what it must be.
shipped: $(ENV)/.demo
	$(ENV)/bin/octrim compress --preset demo --match-games 0 --project runs/shipped --name pong --exist-ok
	cp runs/shipped/pong/4-finetune/last.safetensors src/octrim/shipped/pong.safetensors

# Types are checked while the tests run.
test: $(ENV)/.test
	$(MAKE) --jobs 2 lint all-tests

check: $(ENV)/.test
	$(MAKE) --jobs 2 lint quick-tests

lint: $(ENV)/.test
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/basedpyright

all-tests: $(ENV)/.test
	$(PYTEST)

quick-tests: $(ENV)/.test
	$(PYTEST) -m "not slow"

$(ENV)/bin/python:
	$(PYTHON) -m venv $(ENV)

$(ENV)/.demo: $(ENV)/bin/python pyproject.toml
	$(ENV)/bin/python -m pip install --quiet --editable '.[cpu,pong]'
	touch $@

$(ENV)/.test: $(ENV)/bin/python pyproject.toml
	$(ENV)/bin/python -m pip install --quiet --editable '.[cpu,dev,pong]'
	touch $@

clean:
	rm -rf $(ENV) runs build dist
