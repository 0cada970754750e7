# make demo: install and run the demo.  make test: install, then run all checks and tests.
# make soak: the long tests and those with time limits, on an idle machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check soak clean

demo: $(VENV)/demo.stamp
	$(BIN)/python run_pipeline.py
	@echo "Open the file written above in any player or browser. Next: . $(VENV)/bin/activate"

test:
	@echo "Checks and tests take about 15 minutes on 2 cores."
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup --no-loadscope-reorder \
		--max-worker-restart 0  # a crash ends the run: pytest-xdist may wait for ever after a restart

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict benchmarks monitoring
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tests/check_style.py stream_seg tests benchmarks monitoring examples

soak: $(VENV)/test.stamp
	@echo "The long tests take about 15 minutes. They need an idle machine; its load is$$(uptime | sed 's/.*average://')."
	$(BIN)/python -m pytest --soak
	$(BIN)/python benchmarks/soak.py

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
