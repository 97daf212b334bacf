# Everything a fresh machine needs: Python 3.11 or newer, make and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
ENGINE ?= docker
READY  := $(VENV)/.ready
# compiled at once: where Python may write no bytecode (containers), each of a hundred jobs would compile torch anew
INSTALL := VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --compile-bytecode
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help env smoke report test test-all test-slurm bench lint schema format lock texts docs release image sif clean
help:          ## what can be typed
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

env: $(READY)  ## the environment in $(VENV), from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "coldbench needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@# the second try is for networks whose certificates only the system knows
	$(INSTALL) --require-hashes -r requirements.lock || $(INSTALL) --system-certs --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

smoke: $(READY) ## the whole workflow on embedded images, in minutes: reports/smoke/index.html
	snakemake --workflow-profile smoke

report: $(READY) ## the whole report at this machine's budget: reports/index.html
	snakemake

test: $(READY) ## the tests (minutes, no network)
	pytest -n 2 --dist worksteal -m "not slow and not slurm"

test-all: $(READY) ## the slow tests as well
	pytest -n 2 --dist worksteal -m "not slurm"

test-slurm: $(READY) ## the workflow on a real Slurm of one node, which the tests bring up: as root, with Debian's packages
	pytest -m slurm

bench: $(READY) ## degradations, training, sampling and scoring against plain readings of the released algorithm, about half an hour
	$(BIN)/python benchmarks/bench_degradations.py
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_sampling.py

lint: $(READY) ## style, types, workflow
	ruff check . && ruff format --check . && mypy && lint-imports
	snakefmt --check Snakefile workflow/rules
	snakemake --lint --workflow-profile smoke

network-sizes: $(READY) ## FLOPs and bytes of the shipped networks, from .ci/network_sizes.py
	$(BIN)/python .ci/network_sizes.py coldbench/planning/networks.json

schema: $(READY) ## the configuration's JSON schema, for editors and coldbench explain
	$(BIN)/python .ci/config_schema.py workflow/schemas/config.schema.json

format: $(READY) ## rewrite the sources in the agreed style
	ruff check --fix . && ruff format . && snakefmt Snakefile workflow/rules

lock: $(READY) ## resolve the newest versions into requirements.lock (hashes, no index address)
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -o requirements.lock
	$(BIN)/python .ci/environment_yml.py requirements.lock environment.yml

texts: $(READY) ## write the parts of README.md and docs/ that are data
	$(BIN)/python .ci/pictures.py docs/restored.png
	$(BIN)/python .ci/texts.py

docs: $(READY) ## the documentation as pages: build/docs/index.html
	sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs

# the runs whose models are released: RUNS='results/laptop/E01-fitted results/laptop/E04-released'
BUDGET ?= laptop
RUNS   ?= $(patsubst %/model.safetensors,%,$(wildcard results/$(BUDGET)/*/model.safetensors))

release: $(READY) ## the models of finished runs (BUDGET=laptop, or RUNS=…) for others: build/release
	coldbench release $(RUNS) --out build/release

image:         ## a container image, coldbench, from requirements.lock (ENGINE=podman where that is what you have)
	$(ENGINE) build -t coldbench -f Dockerfile .

sif:           ## the same for Apptainer, for clusters: build/coldbench.sif, for snakemake --sdm apptainer
	mkdir -p build
	apptainer build build/coldbench.sif apptainer.def

clean:         ## remove the smoke run
	rm -rf results/smoke reports/smoke
