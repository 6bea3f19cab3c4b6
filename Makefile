# Everything a newcomer needs: Python 3.11 to 3.13 and make.
PYTHON ?= python3
PORT ?= 3000
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test dev review lint clean

setup: $(BIN)/.ready

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

demo: setup
	$(BIN)/ocr-pipeline demo

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not vllm and not browser and not wrangler and not cluster and not motherduck"

dev: setup
	DAGSTER_HOME="$$($(BIN)/ocr-pipeline dagster-home)" $(BIN)/dagster dev -w workspace.yaml --host 127.0.0.1 --port $(PORT)

review: setup
	$(BIN)/ocr-pipeline review

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv
