.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two seconds in place of a minute; pip does as well.
UV := $(shell command -v uv 2> /dev/null)
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

# Two processes: most tests of the cluster wait for it. Each starts a control plane of its own.
PARALLEL := -n 2 --dist loadgroup

.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(READY) ## Make .venv with everything that is developed with, by hash
$(READY): locks/dev.txt pyproject.toml
ifdef UV
	uv venv --quiet --clear --python $(PYTHON) $(VENV)
	uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r locks/dev.txt
	uv pip install --quiet --python $(BIN)/python --no-deps --editable .
else
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r locks/dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
endif
	@touch $@

# An environment of one lock file and nothing else, for what shall not meet the rest.
$(VENV)-%/.ready: locks/%.txt
ifdef UV
	uv venv --quiet --clear --python $(PYTHON) $(@D)
	uv pip install --quiet --python $(@D)/bin/python --no-deps --only-binary :all: --require-hashes -r $<
else
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --no-deps --only-binary :all: --require-hashes -r $<
	$(@D)/bin/pip uninstall --quiet --yes pip setuptools
endif
	@touch $@

.PHONY: format
format: $(READY) ## Format the code and repair what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: lint
lint: $(READY) ## Check format, style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/mypy -p tests.cluster
	$(BIN)/mypy -p benchmarks
	$(BIN)/mypy -p docs.site

.PHONY: test
test: $(READY) ## Run all tests but the long ones
	tests/cluster/install
	$(BIN)/pytest -m "not long" $(PARALLEL) $(ARGS)
	@echo "Left out: the long tests (make test-long), and what is marked SKIPPED above with its reason."

.PHONY: test-long
test-long: $(READY) ## Run the soak, outage and million-row tests
	tests/cluster/install
	$(BIN)/pytest -m long $(ARGS)

.PHONY: bench
bench: $(READY) ## Run small versions of the benchmarks, in under five minutes
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: demo
demo: $(READY) ## Process real photographs on this machine, without a cluster
	$(BIN)/python examples/demo.py

.PHONY: images
images: ## Build imageprocessing-operator:dev and imageprocessing-worker:dev (BASE_IMAGE=... for the base)
	$(PYTHON) -m tests.cluster.images

.PHONY: docs
docs: $(VENV)-docs/.ready ## Build the site in dist/site; a broken link fails
	$(VENV)-docs/bin/python -m docs.site.pages dist/pages
	$(VENV)-docs/bin/zensical build --strict
	$(VENV)-docs/bin/python -m docs.site.offline dist/site

.PHONY: docs-reference
docs-reference: $(READY) ## Write docs/reference.md from the CRD
	$(BIN)/python -m docs.site.reference > docs/reference.md

.PHONY: docs-screenshots
docs-screenshots: $(READY) ## Take the pictures of the pages anew (needs Chromium)
	$(BIN)/python -m docs.site.screenshots

.PHONY: sbom
sbom: $(VENV)-sbom/.ready $(VENV)-operator/.ready $(VENV)-worker/.ready ## Write what each image holds to dist/*.cdx.json
	@# Validation takes five seconds of CPU each, of what a library writes.
	mkdir -p dist
	for side in operator worker; do \
	  $(VENV)-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --no-validate \
	    --output-file dist/$$side.cdx.json $(VENV)-$$side/bin/python || exit; \
	done

.PHONY: chart
chart: $(READY) ## Copy the CRD into the chart, and write the chart's golden renderings
	cp crds/imageprocessing.dev_imageprocessingrequests.yaml charts/imageprocessing-operator/files/crd.yaml
	$(BIN)/python -m tests.chart.golden

.PHONY: lock
lock: ## Pin the newest dependencies that fit (needs uv)
	$(COMPILE) --upgrade --extra dev pyproject.toml -o locks/dev.txt
	for extra in operator worker cli docs sbom; do \
	  $(COMPILE) --upgrade --extra $$extra --constraint locks/dev.txt pyproject.toml -o locks/$$extra.txt || exit; \
	done
