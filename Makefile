# `make demo` and `make test` need only Python 3.10 or newer with pip; both make their own
# virtual environment here. PYTHON=python3.12 make test chooses the interpreter.

PYTHON ?= python3
VENV = .venv
PARITY = .venv-parity
RUN = $(VENV)/bin/python

.PHONY: help demo test check torture parity quality golden format clean

help:
	@echo "make demo      install, fetch the model, search the documentation of Python itself"
	@echo "make test      install what the tests need, and run them"
	@echo "make check     lint (ruff) and types (strict mypy)"
	@echo "make torture   let durable indexes suffer crashes, power cuts and damage, for an hour"
	@echo "make parity    compare live with torch, transformers and sentence-transformers"
	@echo "make quality   measure nDCG on the test collections, where they are"
	@echo "make golden    write tests/golden again, from the reference implementation"
	@echo "make clean     remove the virtual environments"

demo: $(VENV)/installed
	@$(RUN) -m minisplade demo
	@echo
	@echo "Ask your own:  $(VENV)/bin/minisplade demo \"your question\""

test: $(VENV)/installed-tests
	@echo "Running the tests ..."
	@$(RUN) -m pytest

check: $(VENV)/installed-tests
	@$(RUN) -m ruff format --check minisplade tests scripts
	@$(RUN) -m ruff check minisplade tests scripts
	@$(RUN) -m mypy

format: $(VENV)/installed-tests
	@$(RUN) -m ruff format minisplade tests scripts
	@$(RUN) -m ruff check --fix minisplade tests scripts

parity: $(PARITY)/installed
	@echo "Comparing with torch, transformers and sentence-transformers ..."
	@HF_HUB_OFFLINE=1 $(PARITY)/bin/python -m pytest -m parity

quality: $(VENV)/installed-tests
	@echo "Measuring retrieval quality ..."
	@$(RUN) -m pytest -m quality -s

torture: $(VENV)/installed-tests
	@echo "Torturing durable indexes ..."
	@$(RUN) -m pytest -m torture -s

golden: $(PARITY)/installed
	@HF_HUB_OFFLINE=1 $(PARITY)/bin/python scripts/make_golden.py \
		"$$($(PARITY)/bin/python -m minisplade models pull splade-tiny)"

clean:
	rm -rf $(VENV) $(PARITY)

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" || \
		{ echo "minisplade needs Python 3.10 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing minisplade into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed
	@echo "Installing what the tests need into $(VENV) ..."
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[test,check]"
	@echo "Fetching the default model, unless it is here ..."
	@$(RUN) -m minisplade models pull splade-tiny
	@touch $@

$(PARITY)/installed: $(VENV)/installed-tests
	@echo "Installing torch and the reference implementations into $(PARITY) ..."
	@$(PYTHON) -m venv $(PARITY)
	@$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable ".[test,parity]"
	@touch $@
