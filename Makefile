# Commands of this project. Each makes its own environment; none needs a terminal.
#
#   make test           lint, the whole suite with coverage, and the suite on the other Pythons
#   make lint           everything that reads the code without running it
#   make format         rewrite the code in the house format
#   make bench          measure beside other pools, a quarter of an hour; writes into docs/
#   make demo           the example of the README
#   make test-pythons   the suite on Python 3.12 and 3.13, where this machine has them
#   make soak           100,000 jobs, as many in async workers, and as many requests both ways, while
#                       workers are killed all the time: some minutes
#   make lock           choose the development packages anew
#   make clean          remove what the other commands made

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
LOCK := requirements-dev.lock
BENCH_LOCK := requirements-bench.lock
NEWER_PYTHONS := 3.12 3.13
# Ray and Dask are started on one Python only: it takes minutes, and what is ours of them has no version.
ENGINES := tests/clusters/test_ray.py tests/clusters/test_dask.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export UV_NO_PROGRESS := 1

.PHONY: setup demo soak bench test test-pure test-rest lint format lock clean \
	test-pythons $(NEWER_PYTHONS:%=test-python-%)

# ---------------------------------------------------------------------------------- environment

# $(call install-into,DIR,LOCK): the locked packages and this one, editable. uv does in seconds what
# takes pip a minute; where it cannot be had, pip does it.
define install-into
	@echo "installing the locked packages into $(1)"
	@set -e; \
	if $(1)/bin/python -m pip install --quiet uv 2>/dev/null; then \
		pip="$(1)/bin/uv pip"; python="--python $(1)/bin/python"; \
	else \
		pip="$(1)/bin/python -m pip"; python=; \
	fi; \
	$$pip install --quiet $$python --require-hashes -r $(2); \
	$$pip install --quiet $$python --no-deps --no-build-isolation -e .
	@touch $@
endef

define lock
	$(BIN)/uv pip compile pyproject.toml $(1) --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --upgrade --quiet -o $(2)
endef

setup: .venv/.installed

.venv/.installed: $(LOCK) pyproject.toml
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y python3-venv </dev/null; \
		else \
			echo "$(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; \
		fi; \
	fi
	@$(PYTHON) -m venv --clear .venv
	$(call install-into,.venv,$(LOCK))

.venv-bench/.installed: $(BENCH_LOCK) pyproject.toml setup
	@$(PYTHON) -m venv --clear .venv-bench
	$(call install-into,.venv-bench,$(BENCH_LOCK))

.venv-%/.installed: $(LOCK) pyproject.toml
	@$(PYTHON) -m venv --clear .venv-$*
	$(call install-into,.venv-$*,$(LOCK))

# --------------------------------------------------------------------------------------- checks

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	@# A lock file names no host: it must work wherever packages come from.
	! grep -nHiE 'https?://' $(LOCK) $(BENCH_LOCK)
	! git ls-files | grep -E '(^|/)(uv\.lock|pylock[^/]*\.toml)$$'
	! git grep -nI '"resolved":' -- '*package-lock.json'

test: lint test-pure test-rest
	@$(MAKE) --no-print-directory test-pythons

# The pure folders are covered whole by their own tests: what only a system test reaches, no test
# would explain.
test-pure: setup
	$(BIN)/pytest tests/core tests/wire --cov=okanjo_conductor._core --cov=okanjo_conductor._wire \
		--cov-branch --cov-fail-under=100

test-rest: setup
	$(BIN)/pytest tests --ignore=tests/core --ignore=tests/wire

test-pythons: $(NEWER_PYTHONS:%=test-python-%)

# A name on PATH may be a stub of a version manager that starts nothing: hence the trial.
$(NEWER_PYTHONS:%=test-python-%): test-python-%:
	@for python in python$* $(wildcard $(HOME)/.pyenv/versions/$*.*/bin/python3); do \
		if $$python -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "running the suite on Python $*"; \
			$(MAKE) --no-print-directory PYTHON="$$python" .venv-$*/.installed; \
			.venv-$*/bin/pytest -q tests $(ENGINES:%=--ignore=%); \
			exit; \
		fi; \
	done; \
	echo "no Python $* on this machine: skipped"

# ------------------------------------------------------------------------------------- the rest

format: setup
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

demo: setup
	$(BIN)/python examples/census.py

soak: setup
	$(BIN)/python -W error tests/soak/soak.py $(SOAK)
	$(BIN)/python -W error tests/soak/soak.py --concurrency 10 $(SOAK)
	$(BIN)/python -W error tests/soak/talk.py $(TALK)

# The figures in docs/ are those of a whole run. For a part: make bench BENCH="--only noop"
BENCH ?= --json docs/benchmarks.json --svg docs/benchmarks.svg --page docs/performance.md

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks $(BENCH)

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(call lock,--all-extras --group dev,$(LOCK))
	$(call lock,--extra lookups --extra uvloop --group bench,$(BENCH_LOCK))

clean:
	rm -rf .venv .venv-* build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
