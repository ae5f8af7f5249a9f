# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WORKERS ?= 2

.PHONY: help demo test lint bench bench-micro bench-pricing sanitize soak test-paths clean check-tools build

help: #-- list the targets
	@grep -E '^[a-z-]+:.*#-- ' $(MAKEFILE_LIST) | awk -F ':.*#-- ' '{printf "  make %-13s %s\n", $$1, $$2}'

check-tools:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "make: there is no $(PYTHON). Install Python 3.11 or newer (Debian: apt-get install python3 python3-venv python3-dev)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11. Install a newer one, or say which: make PYTHON=python3.12 demo"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: Python's venv module is missing (Debian: apt-get install python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "make: Python.h is missing (Debian: apt-get install python3-dev; Fedora: dnf install python3-devel)."; exit 1; }
	@command -v $${CC:-cc} >/dev/null 2>&1 || { echo "make: there is no C compiler (Debian: apt-get install gcc; macOS: xcode-select --install)."; exit 1; }

$(STAMP): pyproject.toml setup.py | check-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel cython numpy
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev,arrow,report,feeds,bench]'
	@touch $(STAMP)

build: $(STAMP) #-- set up .venv and compile the native modules
	@$(BIN)/python setup.py --quiet build_ext --inplace >build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log

demo: build #-- run feed, pricing and risk for ten seconds, dropping packets on purpose, and say what happened
	@mkdir -p var
	@$(BIN)/fabric up configs/demo.toml --for 10s --fault drop=0.01,seed=7 --report var/demo-report.json --report var/demo-report.html

test: build #-- run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not soak" -q

$(VENV)/.lint: pyproject.toml | $(STAMP)
	@$(BIN)/python -m pip install --quiet 'basedpyright>=1.20'
	@touch $@

lint: build $(VENV)/.lint #-- ruff, mypy --strict, stubtest, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest $$(ls native/*.pyx | sed 's#native/\(.*\)\.pyx#native.\1#') --allowlist native/stubtest-allowlist.txt --ignore-unused-allowlist
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest tests/typing -q

bench: build #-- every goal of the hot path beside what this machine does; takes half an hour
	@$(BIN)/python bench/table.py $(BENCH)

bench-micro: build #-- what the parts cost (pytest-benchmark; see bench/README.md)
	@$(BIN)/python -m pytest bench -q -p no:xdist --benchmark-only --benchmark-columns=min,median,iqr,ops,rounds

PEERS := numpy scipy numba QuantLib py_vollib_vectorized fast-vollib pyvolr iv-engine lbriv lets-be-precise \
	vanilla-option-pricers

bench-pricing: build #-- the pricing kernel beside other libraries (into var/peers), and the node hop by hop
	@test -x var/peers/bin/python || $(BIN)/python -m venv var/peers
	@for peer in $(PEERS); do \
		var/peers/bin/python -m pip install --quiet $$peer >var/peers/pip.log 2>&1 || echo "will not install: $$peer"; \
	done
	@var/peers/bin/python bench/pricing_peers.py
	@$(BIN)/python bench/pricing_move.py

SANITIZED := var/sanitize
sanitize: build #-- native/ under AddressSanitizer and UndefinedBehaviourSanitizer (gcc); ThreadSanitizer is in `make test`
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -r fabric native nodes tests configs setup.py pyproject.toml $(SANITIZED)/ && rm -f $(SANITIZED)/native/*.so
	@test ! -d ../shared || ln -sfn "$$(cd ../shared && pwd)" var/shared
	@cd $(SANITIZED) && FABRIC_SANITIZE=address,undefined $(CURDIR)/$(BIN)/python setup.py -q build_ext --force --inplace >build.log 2>&1 \
		|| { cat build.log; exit 1; }
	@cd $(SANITIZED) && ASAN_OPTIONS=detect_leaks=0:log_path=$(CURDIR)/$(SANITIZED)/report UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
		LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so) $$($${CC:-gcc} -print-file-name=libubsan.so)" \
		$(CURDIR)/$(BIN)/python -m pytest tests/native tests/nodes/test_pricing.py -q -p no:cacheprovider -m "not soak" \
		--deselect tests/native/test_log_litmus.py || { cat report.* 2>/dev/null; exit 1; }

test-paths: build #-- the tests of whole systems again: by the mapped log, ipc and tcp alone, and without native packets
	@for path in local ipc tcp; do echo "path $$path"; \
		FABRIC_TEST_PATH=$$path $(BIN)/python -m pytest tests/system -n $(WORKERS) --dist worksteal -m "not soak" -q || exit 1; done
	@echo "packets through pyzmq"; FABRIC_WIRE=pyzmq $(BIN)/python -m pytest tests/system tests/fabric -n $(WORKERS) --dist worksteal -m "not soak" -q

soak: build #-- long random tests, left out of `make test`
	@$(BIN)/python -m pytest -p no:xdist -q -s -m soak tests/system/test_soak.py -k full_rate  # alone: it measures
	@$(BIN)/python -m pytest -n $(WORKERS) -m soak -q --timeout 3600 -k "not full_rate"

clean: #-- remove what was built and what ran (.venv stays)
	@rm -rf build dist *.egg-info var native/*.so build.log .hypothesis .pytest_cache .mypy_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
	@for pyx in native/*.pyx; do rm -f "$${pyx%.pyx}.c"; done
