# Two commands do everything: `make` (set up, reproduce, build the book) and `make test`.

PROFILE ?= quick
# An environment that is there is kept with the Python that it has.
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin
WORKFLOW := $(BIN)/python -m beyond_adam.workflow
SMOKE := BEYOND_ADAM_BUILD=$(CURDIR)/_build/smoke
# Files of tests side by side, each in one thread: more would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile
CLEAN := BEYOND_ADAM_BUILD=$(CURDIR)/_build/clean

.DEFAULT_GOAL := book
.PHONY: book test lint types unit notebooks clean-book verify record paper data lab serve lock clean \
  help FORCE
MAKEFLAGS += --no-print-directory

ifeq ($(filter $(PROFILE),smoke quick paper),)
$(error unknown PROFILE=$(PROFILE): choose smoke, quick or paper)
endif

book: .venv/ready ## set up, run what is stale at PROFILE (quick), build the book
	@$(WORKFLOW) build --profile $(PROFILE) --jobs $(JOBS)

test: lint types unit notebooks clean-book ## lint, types, unit tests, nbval, the book from a clean tree, verify

lint: .venv/ready
	@$(BIN)/ruff check --quiet lib tests tools benchmarks chapters
	@$(BIN)/ruff format --quiet --check lib tests tools benchmarks
	@echo "lint: clean"

types: .venv/ready
	@$(BIN)/mypy

unit: .venv/ready
	@$(PYTEST) --no-loadscope-reorder

# Every cell of every chapter runs, at the profile that takes seconds.
notebooks: .venv/ready
	@$(SMOKE) $(WORKFLOW) parameterise --profile smoke
	@$(SMOKE) $(PYTEST) --nbval-lax -p no:cacheprovider _build/smoke/notebooks

# Nothing that an earlier run left behind may help.
clean-book: .venv/ready
	@rm -rf _build/clean
	@$(CLEAN) $(WORKFLOW) build --profile quick --jobs $(JOBS)
	@$(CLEAN) $(WORKFLOW) verify --profile quick

verify: .venv/ready ## compare the last run with the committed record
	@$(WORKFLOW) verify --profile $(PROFILE)

record: .venv/ready ## accept the last run as the committed record
	@$(WORKFLOW) accept --profile $(PROFILE)

paper: ## the same as `make PROFILE=paper`: the scale of the sources
	@$(MAKE) book PROFILE=paper

data: .venv/ready ## fetch and check the data sets, which only runs at paper scale need
	@$(WORKFLOW) data $(SETS)

lab: .venv/ready ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab chapters

serve: ## serve the built book at http://localhost:8000
	@test -f _build/html/index.html || { echo "there is no book yet: run make" >&2; exit 1; }
	@$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 8000

lock: .venv/ready ## resolve the newest versions that pyproject.toml allows into the lock
	@$(BIN)/uv pip compile pyproject.toml --extra book --extra test --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	  --quiet --output-file requirements.lock

clean: ## remove everything generated, except .venv
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done
	@echo "  PROFILE=smoke|quick|paper, JOBS=number of jobs at a time, PYTHON=interpreter"
	@echo "  SETS=data sets to fetch, as in SETS=\"fashion-mnist cifar10\""

# Whether it is ready, the script says, which knows by what it was made and not only when.
.venv/ready: FORCE
	@command -v $(PYTHON) >/dev/null || { echo "set-up: no $(PYTHON): install Python 3.11 or newer, or name it by PYTHON=…" >&2; exit 1; }
	@$(PYTHON) tools/set_up.py
