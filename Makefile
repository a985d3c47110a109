# make demo: the main job, from nothing. make test: the tests and checks, from nothing. make check: those that take no minute.
PYTHON ?= python3
# Processes that run tests; auto: one more than there are cores.
WORKERS ?= auto
ENV := .venv
PYTEST = $(ENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.PHONY: demo test check lint clean

demo: $(ENV)/.demo
	$(ENV)/bin/octrim compress

test: lint
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow"

lint: $(ENV)/.test
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/basedpyright

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
