# Needs python3 (3.11 to 3.13, with venv) and make; everything else is installed into .venv.
#
#   make guide               set up, run the quick sweeps, write results/guide/
#   make guide DATA=folder   the same from your own conversations, as parquet
#   make guide TRACE=file    the same, and what your own traffic says: memlab trace record makes the file
#   make guide ALL=1         with every chapter; an hour the first time
#   make test                set up, run every check
#   make lab                 set up, open JupyterLab on the notebooks
#   make bench               speed of the engine at 100,000 memories: a report
#   make report              run the measuring room where runs are missing, write results/report/; an hour the first time
#   make soak                200 kills of a writing process, 20,000 steps against the model: a quarter of an hour or more
#   make env                 set up only: .venv/bin/memlab
#   make readme              write the README's table of operations from their declarations
#   make lock                choose versions again and write requirements.lock
#   make clean               remove .venv; results stay

PYTHON ?= python3
DATA ?=
TRACE ?=
ALL ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help env guide report test lab bench soak readme lock clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

env: $(READY)

# uv itself is installed from the lock, hashes checked, by the pip that venv brings.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: '$(PYTHON)' is not there; install python 3.11 to 3.13, or say make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	    { echo "make: $$($(PYTHON) --version 2>&1) does not fit; memlab needs python 3.11 to 3.13: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "make: '$(PYTHON)' comes without venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; about half a minute and 1.5 GB)"
	@[ "$$($(BIN)/python -c 'import sys; print(sys.version_info[:2])' 2>/dev/null)" = "$$($(PYTHON) -c 'import sys; print(sys.version_info[:2])')" ] || \
	    $(PYTHON) -m venv --clear $(VENV)
	@awk '/^uv==/ {on = 1} on {print; if (!/\\$$/) exit}' requirements.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@touch $@

guide: env
	@$(BIN)/memlab guide --run $(if $(ALL),--all) $(if $(DATA),--data "$(DATA)") $(if $(TRACE),--trace "$(TRACE)")

# Two runs of pytest: the notebooks, sweeps and browsers of the second start processes of their own, so only two files of them go at
# a time. Its closing line is the last line.
test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto -m "not serial and not soak"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "serial and not soak" --nbval-lax --nbval-cell-timeout=300 tests notebooks

lab: env
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

report: env
	@$(BIN)/memlab report --run

bench: env
	$(BIN)/memlab bench

soak: env
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -m soak --timeout=0 tests

readme: env
	$(BIN)/python -c 'from memlab.operations import table; table.renew("README.md")'

lock: env
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --generate-hashes --quiet \
	    --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf $(VENV)
