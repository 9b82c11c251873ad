# The only door. `make` lists what there is; set-up happens by itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
LIGHT := .venv/bin/python
GPU := .venv-gpu/bin/python
GICLEE := .venv/bin/giclee

# distributions that exist, per environment; a folder that is not there yet is left out
LIGHT_LOCAL := $(patsubst %/pyproject.toml,%,$(wildcard $(addsuffix /pyproject.toml,schemas bus infra cli models) services/*/pyproject.toml))
GPU_LOCAL := $(patsubst %/pyproject.toml,%,$(wildcard $(addsuffix /pyproject.toml,schemas bus infra services/scorer services/gpu-worker models)))
LIGHT_STAMP := .venv/.giclee-ready
GPU_STAMP := .venv-gpu/.giclee-ready

.PHONY: help setup setup-light check lint test test-unit demo up down status logs models schemas docs bench bench-router kill-matrix hosted-matrix

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup-light: $(LIGHT_STAMP)
setup: $(LIGHT_STAMP) $(GPU_STAMP)

check: lint ## lint, and import rules, budgets, schemas, docs
	.venv/bin/pytest -q tests/contract

lint: $(LIGHT_STAMP) ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy $(wildcard schemas/src bus/src infra/src cli/src models/src services/*/src tests)

test: setup ## the whole suite, on real Kafka, Postgres and S3
	.venv/bin/pytest -q --durations 15 -m 'not gpu'
	.venv-gpu/bin/pytest -q -m gpu $$(grep -rl --include='test_*.py' 'mark\.gpu' tests)

test-unit: $(LIGHT_STAMP) ## what needs no service, under a minute
	.venv/bin/pytest -q -m 'not gpu and not real' tests/unit tests/contract

demo: setup ## requests in, approved pictures out: a table and demo/index.html
	@$(GICLEE) dev demo

NEEDS_GPU := $(if $(ONLY),$(findstring scorer,$(ONLY))$(findstring gpu_worker,$(ONLY)),yes)
# make up ONLY=kafka,postgres,s3 SCALE="scorer=2 gpu_worker=2"
up: $(if $(NEEDS_GPU),setup,setup-light) ## start the local stack in the background
	@$(GICLEE) dev up $(if $(ONLY),--only $(ONLY)) $(SCALE)

down: setup-light ## stop it and all it started
	@$(GICLEE) dev down

status: setup-light ## each process with memory and readiness, lag per stage
	@$(GICLEE) dev status

logs: setup-light ## the end of every log, then what is written (Ctrl-C ends it)
	@$(GICLEE) dev logs --follow

models: setup ## train the demo models again
	$(GPU) -m giclee.models train --out models

schemas: $(LIGHT_STAMP) ## regenerate JSON Schema, Avro and AsyncAPI from the events
	$(LIGHT) -m giclee.schemas.export

docs: $(LIGHT_STAMP) ## regenerate the docs of settings, metrics and topics
	$(LIGHT) -m docs.generate

bench: setup ## ratios against a baseline in the same run, into docs/bench.md
	$(LIGHT) -m tests.bench

# make bench-router ARGS="--requests 5000 --seeds 6"
bench-router: $(LIGHT_STAMP) ## the router on a made-up market beside others, four weeks of requests, into docs/router.md: about 20 minutes
	$(LIGHT) -m tests.bench.goal_router $(ARGS)

# make kill-matrix ARGS="--only publisher --modes kill --seeds 1"
kill-matrix: $(LIGHT_STAMP) ## every failpoint killed, stopped, broken, three seeds each: about two hours
	$(LIGHT) -m tests.chaos.kill_matrix $(ARGS)

# make hosted-matrix ARGS="--only fal --deaths 4"
hosted-matrix: $(LIGHT_STAMP) ## a hosted pool's worker killed between every two steps of a paid call, 20 times each: about an hour
	$(LIGHT) -m tests.chaos.hosted_matrix $(ARGS)

# make chaos SEED=7 MINUTES=60 ARGS="--faults-min 250 --requests-min 5000"; a seed repeats its plan of faults
chaos: setup-light ## faults against a three-broker stack, then the invariants
	$(LIGHT) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

# --- set-up: packages follow their pinned set; our own distributions follow their pyproject files ---

$(LIGHT_STAMP): .venv/.packages $(addsuffix /pyproject.toml,$(LIGHT_LOCAL))
	$(call editable,.venv,$(LIGHT_LOCAL))

$(GPU_STAMP): .venv-gpu/.packages $(addsuffix /pyproject.toml,$(GPU_LOCAL))
	$(call editable,.venv-gpu,$(GPU_LOCAL))

.venv/.packages: requirements/dev.txt
	$(call packages,.venv,$<)

.venv-gpu/.packages: requirements/gpu.txt
	$(call packages,.venv-gpu,$<)

# uv: a working one on the PATH, else one of our own by pip
UV = $$(uv --version > /dev/null 2>&1 && echo uv || echo .giclee/uv/bin/uv)

# $(1) folder of the environment, $(2) pinned set
define packages
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is needed; install it, or say make PYTHON=<a Python 3.11>."; exit 1; }
	@uv --version > /dev/null 2>&1 || test -x .giclee/uv/bin/uv || { echo "installing uv into .giclee/uv"; \
	  $(PYTHON) -m venv .giclee/uv && .giclee/uv/bin/python -m pip install --quiet --disable-pip-version-check uv; }
	@echo "installing the packages of $(1)"
	@test -x $(1)/bin/python || $(UV) venv --quiet --python $(PYTHON) $(1)
	@$(UV) pip sync --quiet --require-hashes --python $(1)/bin/python $(2)
	@touch $@
endef

# $(1) folder of the environment, $(2) our distributions; what builds them is among the packages, so nothing is fetched
define editable
	@echo "installing Giclee into $(1)"
	@$(UV) pip install --quiet --no-deps --no-build-isolation --offline --python $(1)/bin/python $(addprefix -e ./,$(2))
	@touch $@
endef
