# `make run` and `make test` set themselves up: a virtual environment in .venv, exact versions from constraints.txt.
# Written for GNU make 3.81 (macOS) and newer.

PYTHON ?= python3
VENV ?= .venv
RECORDING ?= examples/prompt.wav
# PyTorch's own CPU builds, asked only if pip's configured places do not have one. macOS wheels on PyPI are CPU builds.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?= -n auto

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
PINS := pyproject.toml constraints.txt

.PHONY: help setup run test check lint format types docs picture tutorial bench clean distclean

help:
	@echo "make run     transcribe $(RECORDING) with the embedded model"
	@echo "make test    the whole test suite"
	@echo "make check   lint, format check, types, layers"
	@echo "make format  rewrite the sources in the project's style"
	@echo "make docs    write docs/help.md and docs/errors.md from the program"
	@echo "make picture draw docs/images/terminal.svg from what the program prints for $(RECORDING)"
	@echo "make tutorial fine-tune, evaluate, export and serve tiny models, in some minutes"
	@echo "make bench   measurements against sherpa-onnx, pyctcdecode, faster-whisper and others; a quarter of an hour"
	@echo "make setup   install everything that the targets above need"
	@echo "make clean   remove caches and builds;  make distclean: the virtual environment too"

setup: $(VENV)/.test $(VENV)/.node $(VENV)/.check

run: $(VENV)/.base
	@echo "\$$ rechka transcribe $(RECORDING)" >&2
	@$(BIN)/rechka transcribe "$(RECORDING)"
	@echo >&2
	@echo "Try next:" >&2
	@printf '  %-52s %s\n' \
	  "$(BIN)/rechka transcribe YOUR_FILES" "mp3, flac, folders, ..." \
	  "$(BIN)/rechka transcribe FILE --format srt" "or txt, json, vtt, ctm" \
	  "$(BIN)/rechka listen --input $(RECORDING)" "words as it plays" \
	  "$(BIN)/rechka models pull t-one" "for real work, 144 MB" \
	  "make test" "the test suite" >&2

test: $(VENV)/.test $(VENV)/.node
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types

lint: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.check
	$(BIN)/mypy

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.base
	$(BIN)/python docs/reference.py

picture: $(VENV)/.base
	$(BIN)/python docs/picture.py

tutorial: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python recipes/tutorial/run.py

bench: $(VENV)/.test $(VENV)-bench/.ready
	$(BIN)/python benchmarks/suite.py --theirs $(VENV)-bench/bin/python --write docs/benchmarks.md

$(VENV)-bench/.ready: benchmarks/requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing what rechka is measured against (once)" >&2
	@$(PYTHON) -m venv $(VENV)-bench
	@PIP_CONSTRAINT= $(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement benchmarks/requirements.txt --editable .
	@touch $@

clean:
	rm -rf build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis .grimp_cache
	find src tests docs benchmarks recipes -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(VENV)-bench

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "rechka needs Python 3.10 or newer; '$(PYTHON)' is `$(PYTHON) --version 2>&1`." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)" >&2; \
	  echo "and name it if it is not the first python3: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is not complete; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making the virtual environment $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(PINS) | $(BIN)/python
	@echo "Installing rechka and what it needs (once; a minute or two)" >&2
	@$(PIP) --editable .
	@touch $@

# --group needs a newer pip than some systems' ensurepip brings.
$(VENV)/.pip: constraints.txt | $(BIN)/python
	@$(PIP) --upgrade pip
	@touch $@

$(VENV)/.torch: constraints.txt $(VENV)/.pip
	@echo "Installing torch, the CPU build (once; about 200 MB)" >&2
	@$(PIP) torch 2>$(VENV)/torch.log \
	  || $(PIP) --retries 2 --timeout 20 --extra-index-url "$(TORCH_INDEX)" torch 2>>$(VENV)/torch.log \
	  || { cat $(VENV)/torch.log >&2; \
	       echo "torch was found neither where pip is set up to look nor at $(TORCH_INDEX); a mirror: make TORCH_INDEX=..." >&2; exit 1; }
	@touch $@

$(VENV)/.test: $(PINS) $(VENV)/.base $(VENV)/.torch
	@echo "Installing what the tests need (once)" >&2
	@$(PIP) --editable '.[av,data,openvino,otel,postgres,publish,ray,server,tensorboard,train,triton,webrtc,whisper,whisper-train]' --group test
	@touch $@

# Without npm, or where it reaches no registry, the tests of these clients skip with the reason.
NODE_CLIENTS := tests/clients/node
$(VENV)/.node: $(NODE_CLIENTS)/package-lock.json | $(BIN)/python
	@if command -v npm >/dev/null; then \
	  echo "Installing public clients of Node.js for the tests (once)" >&2; \
	  npm ci --prefix $(NODE_CLIENTS) --no-audit --no-fund --silent && touch $@ \
	    || echo "npm could not; their tests will skip" >&2; fi

# mypy reads the types of the server's libraries, and of hypothesis for rechka.testing: hence the extra and both groups.
$(VENV)/.check: $(PINS) $(VENV)/.base $(VENV)/.pip
	@echo "Installing the checkers (once)" >&2
	@$(PIP) --editable '.[server]' --group check --group test
	@touch $@
