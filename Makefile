# make demo: the main job, from nothing. make test: the tests and checks, from nothing.
PYTHON ?= python3
ENV := .venv

.PHONY: demo test clean

demo: $(ENV)/.demo
	$(ENV)/bin/octrim compress

test: $(ENV)/.test
	$(ENV)/bin/ruff check .
	$(ENV)/bin/ruff format --check .
	$(ENV)/bin/basedpyright
	$(ENV)/bin/python -m pytest

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
