# make demo   the shipped model on the bundled sample, in an environment without torch
# make test   everything installed, the whole test suite
# make test-pi   only the emulated Raspberry Pi, with Debian Trixie and then Bookworm (root, mmdebstrap, qemu-user)
# make test-vivid   only a V4L2 camera, the kernel's virtual one in a virtual machine (root, qemu-system-x86, busybox-static)
# make test-power   only deploys that a power cut ends, in a virtual machine (as test-vivid, and e2fsprogs)
# make lint   style, types, import rules, the generated page of commands
# Another Python: make PYTHON=python3.12 demo (after `make clean` if an environment exists already)

PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
OUT := out

.DELETE_ON_ERROR:
.PHONY: demo test test-pi test-vivid test-power lint clean help

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo: $(DEMO)/installed
	@mkdir -p $(OUT)
	$(DEMO)/bin/edgekit run --source demo --save $(OUT)/demo.mp4 --jsonl $(OUT)/demo.jsonl > $(OUT)/demo.txt
	@cat $(OUT)/demo.txt
	@$(DEMO)/bin/python tools/check_demo.py $(OUT)/demo.jsonl
	@echo "annotated video:  $(OUT)/demo.mp4"
	@echo "results:          $(OUT)/demo.jsonl"
	@echo "frame-rate table: $(OUT)/demo.txt"

test: $(TEST)/installed
	$(TEST)/bin/python -m pytest

test-pi: $(TEST)/installed
	EDGEKIT_PI_SUITE=trixie $(TEST)/bin/python -m pytest tests/virtual_pi
	EDGEKIT_PI_SUITE=bookworm $(TEST)/bin/python -m pytest tests/virtual_pi

test-vivid: $(TEST)/installed
	EDGEKIT_TEST_VIVID=1 $(TEST)/bin/python -m pytest tests/vivid

test-power: $(TEST)/installed
	EDGEKIT_TEST_POWER=1 $(TEST)/bin/python -m pytest -s tests/power

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/lint-imports
	$(TEST)/bin/python -m edgekit.cli.reference --check

clean:
	rm -rf $(DEMO) $(TEST) $(OUT) build dist edgekit.egg-info

$(DEMO)/installed: EXTRA := device
$(TEST)/installed: EXTRA := dev

$(DEMO)/installed $(TEST)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgekit needs Python 3.11 or later: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: on Debian, Ubuntu and Raspberry Pi OS run" \
	         "'sudo apt install python3-venv'" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@
