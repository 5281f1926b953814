# make demo         the shipped model on the bundled sample, in an environment without torch
# make test         installs everything and runs the tests that need no booted machine, without the slow ones
#                   (FILE=tests/device/test_events.py: all tests of this file or folder)
# make test-slow    the slow tests: whole test splits, trainings, long scenarios
# make test-boards  an emulated Raspberry Pi, systemd, and the Debian package (root, mmdebstrap, qemu-user)
# make test-pi      only the emulated Raspberry Pi, with Debian Trixie and then Bookworm
# make test-vivid   a V4L2 camera: the kernel's virtual one in a virtual machine (root, qemu-system-x86, busybox-static)
# make test-power   deploys that a power cut ends, in a virtual machine (as test-vivid, and e2fsprogs)
# make test-random  the tests of `make test` in random order
# make test-oldest  the tests of device/ with the oldest supported versions of its dependencies
# make fuzz         mutated files and answers for at least 60 seconds (SECONDS=3600: an hour)
# make audit        known vulnerabilities and licences of the dependencies
# make wording      updates the error messages that the tests expect, in tests/edgekit/cli/wording
# make lint         style, types, import rules, generated pages
# make docs         the documentation site in out/site; a broken link or anchor is an error
# make dist         wheel and source archive in dist/, checked with twine
# make deb          the same, and from the wheel a Debian package, checked with lintian if it is installed
# Another Python: make PYTHON=python3.12 demo (after `make clean` if an environment exists already)
# More or fewer test processes: make WORKERS=8 test

PYTHON ?= python3
# The tests wait more than they compute: more processes than processors. In the order of their folders, the last files
# are short ones.
WORKERS ?= $(shell echo $$((2 * $$(nproc) + 2)))
DEMO := .venv-demo
TEST := .venv-test
OLDEST := .venv-oldest
AUDIT := .venv-audit
DOCS := .venv-docs
OUT := out
# Of `make fuzz`.
SECONDS ?= 60

.DELETE_ON_ERROR:
.PHONY: demo test test-slow test-boards test-pi test-vivid test-power test-random test-oldest fuzz audit wording lint docs dist deb clean help

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

demo: $(DEMO)/installed
	@mkdir -p $(OUT)
	@rm -f $(OUT)/demo.mp4 $(OUT)/demo.jsonl
	$(DEMO)/bin/edgekit run --source demo --save $(OUT)/demo.mp4 --jsonl $(OUT)/demo.jsonl > $(OUT)/demo.txt
	@cat $(OUT)/demo.txt
	@$(DEMO)/bin/python tools/check_demo.py $(OUT)/demo.jsonl
	@echo "annotated video:  $(OUT)/demo.mp4"
	@echo "results:          $(OUT)/demo.jsonl"
	@echo "frame-rate table: $(OUT)/demo.txt"

PYTEST = $(TEST)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
BOARDS = tests/virtual_pi tests/systemd tests/debian
# Need a virtual machine.
MACHINES = tests/vivid tests/power
MARKS ?= not slow
SELECTED = $(BOARDS:%=--ignore=%) $(MACHINES:%=--ignore=%) -m "$(MARKS)"

test: $(TEST)/installed
	$(if $(FILE),$(TEST)/bin/python -m pytest $(FILE),$(PYTEST) $(SELECTED) --durations 20)

test-random: $(TEST)/installed
	$(PYTEST) $(SELECTED) -p randomly

test-slow: MARKS = slow
test-slow: test

test-boards: $(TEST)/installed
	$(TEST)/bin/python -m pytest --numprocesses 2 --dist loadfile $(BOARDS) --durations 20

test-pi: $(TEST)/installed
	EDGEKIT_PI_SUITE=trixie $(TEST)/bin/python -m pytest tests/virtual_pi
	EDGEKIT_PI_SUITE=bookworm $(TEST)/bin/python -m pytest tests/virtual_pi

test-vivid: $(TEST)/installed
	EDGEKIT_TEST_VIVID=1 $(TEST)/bin/python -m pytest tests/vivid

test-power: $(TEST)/installed
	EDGEKIT_TEST_POWER=1 $(TEST)/bin/python -m pytest -s tests/power

test-oldest: $(TEST)/installed
	$(TEST)/bin/python tools/oldest_requirements.py > $(TEST)/oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement $(TEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(OLDEST)/bin/python -m pytest --numprocesses $(WORKERS) -m "not slow" tests/device

fuzz: $(TEST)/installed
	$(TEST)/bin/python -m tests.fuzz.runner --seconds $(SECONDS) --first $$(date +%s)

audit: $(TEST)/installed
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit || true
	$(TEST)/bin/python tools/audit.py $(AUDIT)/bin/pip-audit

wording: $(TEST)/installed
	EDGEKIT_WRITE_WORDING=1 $(TEST)/bin/python -m pytest --quiet tests/edgekit/cli/test_bad_usage.py

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/lint-imports
	$(TEST)/bin/python -m tools.reference_pages --check
	$(TEST)/bin/codespell

docs: $(DOCS)/installed $(TEST)/installed
	$(TEST)/bin/python -m tools.reference_pages
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "documentation: $(OUT)/site/index.html"

dist: $(TEST)/installed
	rm -rf dist
	$(TEST)/bin/python tools/check_packages.py dist
	$(TEST)/bin/twine check --strict dist/*

deb: dist
	$(TEST)/bin/python tools/debian_package.py dist/*.whl dist
	if command -v lintian >/dev/null; then lintian --fail-on error --tag-display-limit 0 dist/*.deb; fi

clean:
	rm -rf $(DEMO) $(TEST) $(OLDEST) $(AUDIT) $(DOCS) $(OUT) build dist edgekit_pi.egg-info

$(DEMO)/installed: EXTRA := device
$(TEST)/installed: EXTRA := dev
$(DOCS)/installed: EXTRA := docs

$(DEMO)/installed $(TEST)/installed $(DOCS)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgekit needs Python 3.11 or later: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: on Debian, Ubuntu and Raspberry Pi OS run" \
	         "'sudo apt install python3-venv'" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@
