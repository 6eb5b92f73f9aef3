# Thin: each line is a command that a person could type. MIRROR=DIR names the folder of real images.
PYTHON ?= python3.11
SNAKEMAKE = .venv/bin/snakemake --cores all --resources gpu=1

.PHONY: demo test test-whole lint docs mini rehearsal report readme bench bench-statistics bench-data bench-duplicates bench-models bench-scale fuzz clean

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-cache-dir --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: .venv/.installed
	$(SNAKEMAKE) --config profile=smoke

mini: .venv/.installed
	$(if $(MIRROR),,$(error Name the folder of the images: make mini MIRROR=/path/to/mirror))
	$(SNAKEMAKE) --config profile=mini mirror=$(MIRROR)

rehearsal: .venv/.installed
	$(if $(MIRROR),,$(error Name the folder of the images: make rehearsal MIRROR=/path/to/mirror))
	$(SNAKEMAKE) --keep-going --config profile=rehearsal mirror=$(MIRROR)

test: lint
	.venv/bin/python -m pytest --numprocesses auto

test-whole: .venv/.installed
	LESION_WHOLE=1 .venv/bin/python -m pytest -m whole -rP

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile workflow/rules
	.venv/bin/mypy lesion_core

docs: .venv/.installed
	.venv/bin/mkdocs build --strict --quiet

report: .venv/.installed
	$(SNAKEMAKE) --config profile=smoke -- results/smoke/report.html

readme: .venv/.installed
	.venv/bin/lesion readme --root results/mini

bench: .venv/.installed
	.venv/bin/lesion bench --root results/smoke

bench-statistics: .venv/.installed
	.venv/bin/python -m benchmarks.statistics

bench-data: .venv/.installed
	.venv/bin/python -m benchmarks.data

bench-duplicates: .venv/.installed
	.venv/bin/python -m benchmarks.duplicates $(if $(MIRROR),--mirror $(MIRROR))

bench-models: .venv/.installed
	.venv/bin/python -m benchmarks.models

bench-scale: .venv/.installed
	.venv/bin/python -m benchmarks.scale

fuzz: .venv/.installed
	.venv/bin/python -m benchmarks.fuzz $(if $(FILES),--files $(FILES))

clean:
	rm -rf results/*/ .snakemake site
