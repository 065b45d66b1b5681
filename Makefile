# Two commands: `make demo` (set up, run the main job) and `make test` (set up, check everything).
# Each makes the environments it needs; only package downloads touch the network.

PYTHON ?= python3
SHELL := bash
VENV := .venv
VENV15 := .venv-duckdb15
VENV_RASTERET := .venv-rasteret
VENV_PEERS := .venv-peers
PYTHON312 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python3.12) python3.12)
TOOLS := .tools
BIN := $(VENV)/bin
# uv installs with a fifth of pip's CPU, and the second environment from its cache; an index that
# only pip's settings name is pip's. Nothing is compiled: a quarter of the packages is imported,
# and compiled then.
install = $(BIN)/uv pip install -q --python $(1) $(2) \
  || $(1)/bin/python -m pip install -q --no-compile $(2)
# Each worker imports every file of tests, and tests start hundreds of programs.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(TOOLS)/node_modules/.bin:$(PATH)

# Each worker has its own fixtures, and runs whole files of tests. It takes half a GB of memory.
# Both DuckDB versions run at the same time; 1.5 has a third as much to do, and half of the cores.
# 2.0 has a worker more than there are cores: each waits for disks and servers now and then.
# Some tests measure time: one that fails is run again, up to twice. A worker that crashes ends
# the run: xdist waits for ever for the one that replaces it. What the workers import is compiled
# once before, where tests are collected for nothing else.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); n=$$((n / 2)); \
  echo $$((n < 1 ? 1 : n > 4 ? 4 : n)))
PYTEST := -m pytest --dist loadfile --no-loadscope-reorder --max-worker-restart=0 --reruns 2 --durations 25

# Folders whose tests depend on the DuckDB version; the rest runs once, and so does what is
# marked any_duckdb in them.
DUCKDB_TESTS := tests/duck tests/sql tests/reading tests/collections tests/datasets \
  tests/ingest tests/maintenance tests/cli tests/serve tests/dbt tests/docs tests/maps

.PHONY: demo test check test-duckdb2 test-duckdb15 wheel interop matrix agreement fuzz bench bench-peers clean

demo: $(VENV)/.user
	$(BIN)/rasteret-sql demo

# Both runs of tests, and the other parts beside them; the closing line of pytest comes last.
test:
	@rm -f .test-summary
	@$(MAKE) --no-print-directory -j3 $(if $(filter output-sync,$(.FEATURES)),-O) \
	  test-duckdb15 test-duckdb2 check wheel
	@cat .test-summary

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-duckdb15: $(VENV15)/.dev
	$(VENV15)/bin/python $(PYTEST) -n $(WORKERS) -m 'not any_duckdb' $(DUCKDB_TESTS)

test-duckdb2: $(VENV)/.dev $(TOOLS)/.azurite $(TOOLS)/.chromium
	$(BIN)/python -m pytest --doctest-modules rasteret_sql
	$(BIN)/python -m pytest --collect-only -qq tests >/dev/null 2>&1 || true
	$(BIN)/python $(PYTEST) -n $$((2 * $(WORKERS) + 1)) tests | tee .test-summary.all; \
	  status=$${PIPESTATUS[0]}; tail -n 1 .test-summary.all > .test-summary; exit $$status

# The built wheel, in an environment of its own, without the checkout.
wheel: $(VENV)/.dev
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel -q --no-deps -w build/wheel .
	$(BIN)/uv venv -q --seed --python $(BIN)/python build/wheel/venv
	$(call install,build/wheel/venv,build/wheel/*.whl)
	cd build/wheel && ./venv/bin/rasteret-sql demo --folder demo > demo.txt && tail -n 3 demo.txt

# rasteret itself, both ways. It needs Python 3.12 and a hundred packages (a minute and a half
# to install), so `make test` leaves it out.
interop: $(VENV)/.dev $(VENV_RASTERET)/.ready
	RASTERET_PYTHON=$(CURDIR)/$(VENV_RASTERET)/bin/python $(BIN)/python -m pytest tests/interop

# Reads beside the least that they can cost, overheads and memory: benchmarks/RESULTS.md. Scenes
# are made once, outside the repository's files (0.8 GB, two minutes). As root, what is timed has
# real-time priority, and nginx is installed where apt has it; else a server in Python is used.
BENCH := build/bench
RESULTS := benchmarks/RESULTS.md
BENCH_FLAGS := $(if $(filter 0,$(shell id -u)),--rt)

bench: $(VENV)/.dev $(BENCH)/layout.json
	$(BIN)/python benchmarks/reads.py --folder $(BENCH) $(BENCH_FLAGS) $(PEERS)
	$(BIN)/python benchmarks/overhead.py --folder $(BENCH) $(BENCH_FLAGS) --append $(RESULTS)
	$(BIN)/python benchmarks/memory.py --folder $(BENCH) --reads aggregate copy --append $(RESULTS)
	$(BIN)/python benchmarks/memory.py --folder $(BENCH) --gigabytes 1 \
	  --reads points match zones composite --append $(RESULTS)

# The same with rasterio, async-geotiff and rasteret, in an environment of their own.
bench-peers: PEERS := --peers $(CURDIR)/$(VENV_PEERS)/bin/python
bench-peers: $(VENV_PEERS)/.ready bench

$(BENCH)/layout.json: $(VENV)/.dev
	test "$$(id -u)" != 0 || test -e /usr/lib/nginx/modules/ngx_http_lua_module.so || \
	  (apt-get update -qq && apt-get install -y -qq nginx-light libnginx-mod-http-lua) || true
	$(BIN)/python benchmarks/scenes.py --folder $(BENCH)

$(VENV_PEERS)/.ready:
	$(PYTHON312) -m venv $(VENV_PEERS)
	$(VENV_PEERS)/bin/python -m pip install -q rasteret==0.4.1 rasterio async-geotiff
	touch $@

matrix: $(VENV)/.dev
	$(BIN)/python tests/tiff/matrix.py --write docs/formats.md

# Each read beside GDAL, exactextract, NumPy: a page with what was compared, and how it differs.
agreement: $(VENV)/.dev
	$(BIN)/python tests/reading/agreement.py --write docs/reads.md

fuzz: $(VENV)/.dev
	$(BIN)/python tests/tiff/fuzz.py --seconds 300

$(VENV)/.uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -U pip uv
	touch $@

$(VENV)/.user: pyproject.toml | $(VENV)/.uv
	$(call install,$(VENV),-e .)
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.uv
	$(call install,$(VENV),-e '.[dbt]' --group dev --group frames 'duckdb==2.0.0')
	touch $@ $(VENV)/.user

$(VENV15)/.dev: pyproject.toml | $(VENV)/.dev
	$(BIN)/uv venv -q --seed --allow-existing --python $(BIN)/python $(VENV15)
	$(call install,$(VENV15),-e '.[dbt]' --group dev --group duckdb15)
	touch $@

$(VENV_RASTERET)/.ready:
	$(PYTHON312) -m venv $(VENV_RASTERET)
	$(VENV_RASTERET)/bin/python -m pip install -q rasteret==0.4.1 rasterio
	touch $@

# Azurite, the Azure emulator; without npm its tests say so and skip.
$(TOOLS)/.azurite:
	mkdir -p $(TOOLS)
	npm install --silent --no-audit --no-fund --prefix $(TOOLS) azurite || true
	touch $@

# A browser for the page of the map; its tests say so and skip where there is none.
$(TOOLS)/.chromium:
	mkdir -p $(TOOLS)
	command -v chromium >/dev/null || test "$$(id -u)" != 0 || \
	  (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) \
	  >/dev/null 2>&1 || true
	touch $@

clean:
	rm -rf $(VENV) $(VENV15) $(VENV_RASTERET) $(VENV_PEERS) $(TOOLS) build dist .test-summary*
