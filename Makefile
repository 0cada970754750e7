# make demo: set up, run the demo, say where the result is.  make test: set up, pass every check and test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/demo.stamp
	$(BIN)/python run_pipeline.py
	@echo "The demo's result is $(CURDIR)/demo.mp4; open it in any player or browser."

# The zoo's contract takes the processor and no notice of time; so it runs beside the others, and last in line.
ZOO := tests/zoo/test_contract.py
test: check
	@nice -n 19 $(BIN)/python -m pytest $(ZOO) >$(VENV)/zoo.log 2>&1 & zoo=$$!; trap 'kill $$zoo' INT TERM; \
	$(BIN)/python -m pytest --ignore=$(ZOO); others=$$?; \
	echo "$(ZOO):"; wait $$zoo; zoo=$$?; cat $(VENV)/zoo.log; exit $$((others || zoo))

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict benchmarks monitoring
	$(BIN)/lint-imports --no-cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[web]"
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
