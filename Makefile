# make demo   set up, restore a photo with a bundled model, show the gain
# make test   set up, lint, type-check, run all but the slow tests
# make test-all  the same with the slow tests
# make test-extras  set up with the large extras, web and ray, and run the tests that need them or take minutes
# make docs   set up, build the documentation into site/
# make bench  set up, measure speed, memory and exactness on this machine; numbers and plots go to bench/
# make gpu-rehearsal  the report that needs a GPU (docs/speed-gpu.md), on the CPU with very small networks

PYTHON ?= python3
BIN := .venv/bin
comma := ,
# Each process holds PyTorch: more than eight of them gain nothing on large machines.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

.PHONY: demo test quick-tests test-all all-tests test-extras docs bench gpu-rehearsal check format clean

demo: .venv/installed
	$(BIN)/swinir demo

# At once: the type checker takes one core alone.
test: .venv/installed-dev
	@$(MAKE) --no-print-directory -j2 check quick-tests

quick-tests: .venv/installed-dev
	$(PYTEST) -m "not slow and not extras"

# One session: the tests are collected once, and no processor idles at the end of the quick ones.
test-all: .venv/installed-dev
	@$(MAKE) --no-print-directory -j2 check all-tests

all-tests: .venv/installed-dev
	$(PYTEST) -m "not extras"

test-extras: .venv/installed-extras
	$(PYTEST) -m extras

docs: .venv/installed-docs
	rm -rf build/docs site && mkdir -p build/docs
	tar cf - *.md LICENSE configs docs model_zoo/README.md model_zoo/bundled/index.toml testsets/README.md | tar xf - -C build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: .venv/installed
	mkdir -p bench
	$(BIN)/swinir bench lightweight_sr_x1-4_tiny --scale 2 --sizes 136,264 --repeats 3 --json bench/tiny_x2.json --plot bench/tiny_x2.png
	$(BIN)/swinir bench lightweight_sr_x2_DIV2K --sizes 136 --repeats 3 --json bench/small_x2.json --plot bench/small_x2.png

gpu-rehearsal: .venv/installed-dev
	bash scripts/gpu_report.sh 240 --device cpu --tiny

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

# pip compiles with one processor, compileall with all. Some files of packages are for other versions of Python.
define install
$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.$(1)'
@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
endef

.venv/installed: .venv/bin/python pyproject.toml
	$(call install)
	@touch $@

.venv/installed-docs: .venv/bin/python pyproject.toml
	$(call install,[docs])
	@touch $@ .venv/installed

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(call install,[dev])
	@touch $@ .venv/installed-docs .venv/installed

.venv/installed-extras: .venv/bin/python pyproject.toml
	$(call install,[dev$(comma)web$(comma)ray])
	@touch $@ .venv/installed-dev .venv/installed-docs .venv/installed
