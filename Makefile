# Every task of the project. `make run` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: run test env dev-env servers lint types imports unit bench bench-backup proof wheel sbom deb docs golden lock clean help

help:            ## what there is to make
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

run: env         ## run the agent in the foreground, all defaults, state under ./.state
	@exec $(BIN)/vigilhost run --state-dir .state

test: dev-env servers lint types imports unit ## everything that proves a change: lint, types, layers, all tests

env: $(VENV)/.runtime ## the private environment: leaves .venv/bin/vigilhost

$(VENV)/.runtime: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vigilhost needs Python 3.11 or newer; found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

dev-env: env $(VENV)/.dev
$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

servers:         ## the Debian packages of the servers the tests talk to (needs root or sudo)
	@tests/servers/install

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

unit:
	$(BIN)/pytest -q -p no:benchmark -n 3 --dist loadfile

bench: dev-env servers ## the agent for a minute beside node_exporter and collectd, then the parts
	$(BIN)/python -m benchmarks.agent
	$(BIN)/pytest -q benchmarks --benchmark-only

bench-backup: dev-env servers ## backups beside GNU tar and zstd, pg_dump and restic; then the agent while one runs
	$(BIN)/python -m benchmarks.backup
	$(BIN)/python -m benchmarks.backup_beside

proof: dev-env servers ## the long campaigns behind the figures of docs/reliability.md; about an hour and a half
	$(BIN)/python -m tests.proof.all
	$(BIN)/python -m tests.sinks.journal.campaign --flips 10000 --kills 10000 --hours 24
	$(BIN)/python -m benchmarks.service
	$(BIN)/pytest -q -p no:benchmark tests/proof/lxd.py tests/proof/zfs.py

# Packages. The .deb's private environment is for Debian 12's own Python, whatever `python3` is here.
PACKAGE_PYTHON ?= /usr/bin/python3.11
VERSION  := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' agent/__init__.py)
WHEEL    := dist/vigilhost-$(VERSION)-py3-none-any.whl
PRODUCT  := $(shell find agent collectors sinks alerting backup -type f -not -name '*.pyc') pyproject.toml README.md LICENSE
PACKAGED := $(wildcard README*.md) $(shell find packaging systemd docs changelog.d -type f -not -name '*.pyc') CHANGELOG.md requirements.lock

wheel: $(WHEEL)  ## dist/vigilhost-VERSION-py3-none-any.whl
sbom: dist/.deb  ## dist/vigilhost-VERSION.cdx.json, what the package is made of; comes with `make deb`
deb: dist/.deb   ## dist/vigilhost_VERSION_ARCH.deb for Debian 12

build/.env: requirements-build.lock
	$(PACKAGE_PYTHON) -m venv build/env
	build/env/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements-build.lock
	@touch $@

# What stands for "now" in all of it; another commit makes all of it anew.
build/.moment: build/.env FORCE
	@now=$$(build/env/bin/python packaging/project.py) && { [ "$$now" = "$$(cat $@ 2>/dev/null)" ] || echo "$$now" >$@; }
FORCE:

$(WHEEL): build/.moment $(PRODUCT)
	SOURCE_DATE_EPOCH=$$(cat build/.moment) build/env/bin/hatchling build -t wheel -d dist >/dev/null

build/.downloads: build/.env requirements.lock
	rm -rf build/downloads
	build/env/bin/pip download -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -d build/downloads -r requirements.lock
	@touch $@

dist/.deb: $(WHEEL) build/.downloads $(PACKAGED)
	rm -f dist/vigilhost_*.deb dist/vigilhost-*.cdx.json
	SOURCE_DATE_EPOCH=$$(cat build/.moment) build/env/bin/python packaging/deb.py $(WHEEL) build/downloads dist
	@touch $@

golden: dev-env  ## write the golden files anew; read the difference before you keep it
	$(BIN)/python -m tests.golden.update

docs: dev-env    ## write the generated pages of the manual anew
	$(BIN)/python -m agent.config.reference > docs/configuration.md
	$(BIN)/python -m agent.config.backup_reference > docs/backup-options.md
	$(BIN)/python -m agent.metrics_reference > docs/metrics.md

lock:            ## write the lock files anew (needs uv)
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements.lock
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --group dev pyproject.toml -o requirements-dev.lock
	echo 'hatchling' | uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url - -o requirements-build.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
