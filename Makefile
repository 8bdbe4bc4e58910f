STUDY  ?= digits
DEPTH  ?= 1
PYTHON ?= python3
PORT   ?= 5000
TORCH  ?= cuda
EXAMPLES ?= 2000

BIN       = .venv/bin
UV        = $(shell command -v uv)
INSTALL   = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet --disable-pip-version-check)
SNAKEMAKE = $(BIN)/entpruner warm -- $(BIN)/snakemake --configfile params/$(STUDY).yaml --quiet host reason $(CACHE) --cores all
CACHE     = $(if $(SNAKEMAKE_OUTPUT_CACHE),--cache)
SAVED     = $(wildcard $(addprefix results/$(STUDY)/,data autoencoder latents classifier pretrain adapt scores arms cost tables figures effects audit))
POINTERS  = $(wildcard results/$(STUDY)/*.dvc)
REMOTE    = $(BIN)/dvc remote default >/dev/null 2>&1
MLFLOW    = $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) --allowed-hosts 'localhost:$(PORT),127.0.0.1:$(PORT)' \
	--backend-store-uri sqlite:///results/mlflow.db --artifacts-destination results/mlartifacts

export DVC_NO_ANALYTICS = true
export MLFLOW_DISABLE_TELEMETRY = true
unexport PYTHONDONTWRITEBYTECODE    # without compiled libraries each start of a command takes seconds more

.PHONY: help results quick smoke audit report verify ui watch test test-slurm fuzz chaos lint docs screenshots dist bench growth bench-gpu save restore publish

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*  ## /\1	/p' $(MAKEFILE_LIST) | expand -t 10
	@echo 'STUDY=digits is the params file and the folder under results/; PYTHON=python3 what .venv is made from.'
	@echo 'TORCH=cpu sets up PyTorch without CUDA, at the first call.'

results: .venv/ready  ## everything of the study: data, models, arms, tables, figures
	$(SNAKEMAKE)

quick: .venv/ready  ## a first table in some minutes, Table 1 with one seed; make results goes on from it
	$(SNAKEMAKE) results/$(STUDY)/tables/quick.md results/$(STUDY)/figures/samples.png

smoke: .venv/ready  ## every rule once, in about a minute
	$(MAKE) results STUDY=smoke

audit: .venv/ready  ## what score and proxies are worth: results/<study>/audit/README.md
	$(SNAKEMAKE) audit

report: .venv/ready  ## report.html: tables and figures in chapters
	$(SNAKEMAKE) --report report.html

verify: .venv/ready  ## a verdict on every cell, from shipped records; DEPTH=2: trained networks, DEPTH=3: nothing
	$(BIN)/python -m entpruner.cli verify --study $(STUDY) --depth $(DEPTH)

ui: .venv/ready  ## MLflow's page of all finished arms, on loopback (PORT=5000)
	$(SNAKEMAKE) track --forcerun track
	@sed -n 's|.*"page": "\(.*\)".*|Open http://127.0.0.1:$(PORT)/\1|p' results/$(STUDY)/tracking.json
	$(MLFLOW)

watch: .venv/ready  ## MLflow's page for trainings that send their curves to it (compute.mlflow), on loopback (PORT=5000)
	@echo 'Open http://127.0.0.1:$(PORT)/#/experiments?workflowType=machine_learning'   # else it shows language models
	$(MLFLOW)

test: .venv/ready  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slurm: .venv/ready  ## a small study through a SLURM of its own, as root, its jobs cancelled and out of time
	tests/on_slurm

fuzz: .venv/ready  ## input that nobody would write, so many examples of each kind: EXAMPLES=2000
	FUZZ=$(EXAMPLES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_fuzz.py

chaos: .venv/ready  ## kill the smoke study again and again: the result must be the same bits (CHAOS=--help)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m chaos $(CHAOS)

lint: .venv/ready  ## style and types of the Python and of the workflow
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python -m pytest tests/test_workflow.py -k lint    # Snakemake's own, but for the one that the test names

docs: .venv/ready  ## the documentation: docs/_build/html/index.html
	COLUMNS=100 $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

dist: .venv/ready  ## a wheel and a source archive of the package: dist/
	$(BIN)/python -c 'from setuptools import build_meta as build; build.build_sdist("dist"); build.build_wheel("dist")'

bench: .venv/ready  ## how fast this is on the CPU at hand, against the plain form: docs/benchmarks.md
	OMP_NUM_THREADS=2 $(BIN)/python benchmarks/suite.py

growth: .venv/ready  ## how time and memory grow with depth, width, tokens, batch and arms: docs/growth.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py

bench-gpu: .venv/ready  ## how fast XL/2 is on one GPU, in some minutes: benchmarks/results/gpu-<card>.json
	$(BIN)/python benchmarks/gpu.py

screenshots: .venv/ready  ## the page of the published study, and its pictures for the documentation, with Chromium
	$(BIN)/python docs/screenshots.py $(STUDY) docs/_build/story.html

# ---------------------------------------------------------------- versions: DVC moves, git remembers (results/README.md)

save: .venv/ready  ## version a finished run's artefacts, and push them where a DVC remote is set
	@test -n '$(SAVED)' || { echo 'results/$(STUDY): nothing to save yet; run: make results STUDY=$(STUDY)'; exit 1; }
	$(BIN)/dvc add --no-relink $(SAVED)
	if $(REMOTE); then $(BIN)/dvc push $(SAVED:=.dvc); fi

restore: .venv/ready  ## bring a saved run back without rerunning anything
	@test -n '$(POINTERS)' || { echo 'results/$(STUDY): this commit has no saved run; see results/README.md'; exit 1; }
	if $(REMOTE); then $(BIN)/dvc pull $(POINTERS); else $(BIN)/dvc checkout $(POINTERS); fi
	$(SNAKEMAKE) --touch --forceall all $(if $(filter %/audit.dvc,$(POINTERS)),audit)

publish: .venv/ready  ## write what is small to results/published/, where git keeps it, and what to expect of it
	$(BIN)/python -m entpruner.reporting.publish results/$(STUDY) results/published/$(STUDY)
	test ! -d results/published/$(STUDY)/tables || \
	$(BIN)/python -m entpruner.cli expect results/published/$(STUDY) --out params/expected/$(STUDY).yaml

# ----------------------------------- set-up, by uv where it is there: a whole .venv is brought up to date, a half one made anew

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo '$(PYTHON): Python 3.11 or newer is needed; name one, as in: make results PYTHON=python3.12'; exit 1; }
	@echo 'Setting up .venv: some minutes, once'
	test -e $@ || $(PYTHON) -m venv --clear .venv
	rm -f $@
ifeq ($(TORCH),cpu)
	$(INSTALL) --no-deps --index-url https://download.pytorch.org/whl/cpu $(shell sed -nE 's/^(torch(vision)?==[^ ]*).*/\1/p' requirements.lock)
	awk '/^[a-z]/ {kept = !/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/} kept' requirements.lock > .venv/cpu.lock
	$(INSTALL) --no-deps --require-hashes --requirement .venv/cpu.lock
else
	$(INSTALL) --require-hashes --requirement requirements.lock
endif
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@
