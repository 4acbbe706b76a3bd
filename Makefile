# `make run` and `make test` do all the set-up on a fresh machine. Everything lands in .venv*; `make clean` starts over.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
PYTHON ?= python3
V      := .venv
R      := requirements
WHEELS := --require-hashes --only-binary :all:
FLAGS  := -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF
# The kept engine wheel is named by all that went into it: another flag, another wheel.
KEY    := $(shell { cat $R/sdist.txt $R/build.txt build_aux/lean-llama-build.cmake; echo '$(FLAGS)'; uname -sm; } | sha256sum | cut -c1-16)
KEPT   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mixgate/wheels/$(KEY)
# $(call install,environment,what): uv, or where it finds nothing (it does not read pip.conf) pip, same flags, same locks.
install = $V/bin/uv pip install -q -p $1 $2 || $V/bin/pip --python $1 install -q $2
# Other packages bring pytest plugins of their own; only ours are loaded, by name.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD = 1
PYTEST := $V/bin/python -m pytest -p pytest_asyncio.plugin -p _hypothesis_pytestplugin -p xdist.plugin
# Most tests wait most of the time, so several files run at once. What fails beside others is tried again by itself.
TOGETHER := -n 3 --dist loadfile --maxfail=50
ALONE    := -n 0 --last-failed --last-failed-no-failures none
# Without a compiler the engine's tests are skipped; where build_aux/engine left its mark they may not be.
BUILT  := [[ ! -e $V/.engine-$(KEY) ]] || export MIXGATE_TEST_REQUIRE_ENGINE=1

# What every request passes through, compiled (build_aux/compile.py): $(call compiled) is the folder, empty without a compiler.
# COMPILED=no leaves it out and runs the sources.
COMPILED ?= yes
compiled = $$([[ $(COMPILED) == no ]] || $V/bin/python build_aux/compile.py)

.PHONY: run test test-full check docs format bench packages lock engine clean

run: $V/.run $V/.compile engine
	@PYTHONPATH=$(compiled)
	export PYTHONPATH
	exec $V/bin/mixgate serve

test: $V/.test engine packages
	@$(BUILT)
	MIXGATE_TEST_COMPILED=$(compiled)
	export MIXGATE_TEST_COMPILED
	$(PYTEST) -m 'not full' $(TOGETHER) $(ARGS) || { (($$? == 1)) && echo 'what failed, alone:' && $(PYTEST) -m 'not full' $(ALONE) $(ARGS); }

test-full: $V/.test engine packages
	@$(BUILT)
	MIXGATE_TEST_COMPILED=$(compiled)
	export MIXGATE_TEST_COMPILED
	MIXGATE_TEST_FULL=1 $(PYTEST) $(ARGS)

check: $V/.test engine
	@$V/bin/ruff format --check -q .
	$V/bin/ruff check -q .
	$V/bin/lint-imports --no-cache
	$V/bin/mypy
	$V/bin/pyright

docs: $V/.test
	@$V/bin/python build_aux/generate_docs.py $(ARGS)

format: $V/.test
	@$V/bin/ruff format -q . && $V/bin/ruff check -q --fix .

bench: $V/.test engine
	@BENCH_COMPILED=$(compiled)
	export BENCH_COMPILED
	$V/bin/python -m bench $(ARGS)

packages:
	@.ci/packages

# The local backend's engine: built once, kept outside the tree. Without a compiler the gateway still runs.
engine: $V/.run
	@PYTHON=$(PYTHON) build_aux/engine '$V' '$(KEPT)' '$(FLAGS)'

$V/.boot: $R/bootstrap.txt
	@echo "setting up .venv (once)"
	$(PYTHON) -m venv $V
	$V/bin/pip install -q $(WHEELS) -r $<
	touch $@

$V/.run: $V/.boot $R/runtime.txt $R/local.txt pyproject.toml
	@$(call install,$V,$(WHEELS) -r $R/runtime.txt -r $R/local.txt)
	$(call install,$V,--no-index --no-deps --no-build-isolation -e .)
	touch $@

# What build_aux/compile.py takes; the tests' environment has it anyway.
$V/.compile: $V/.run $R/compile.txt
	@$(call install,$V,$(WHEELS) -r $R/compile.txt)
	touch $@

$V/.test: $V/.run $V/.compile $R/test.txt
	@$(call install,$V,$(WHEELS) --no-binary forbiddenfruit --no-build-isolation -r $R/test.txt)
	touch $@

# Locks: `make lock` (UPGRADE=--upgrade to move). The widest set first; the others take its versions.
C = $V/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock: $V/.boot
	@cd $R; C="../$C"
	$$C runtime.in local.in test.in --no-emit-package llama-cpp-python -o test.txt
	$$C runtime.in -c test.txt -o runtime.txt
	$$C local.in -c test.txt --no-emit-package llama-cpp-python -o local.txt
	$$C --no-deps sdist.in -o sdist.txt
	$$C otel.in -c test.txt -o otel.txt
	$$C runtime.in litellm.in -o litellm.txt # apart: it wants an older openai than the tests do
	$$C bootstrap.in -o bootstrap.txt
	$$C build.in -o build.txt
	$$C compile.in -c test.txt -o compile.txt
	! grep -nE '://|^-' *.txt

clean:
	rm -rf .venv*

# The gateways that `make bench` measures beside ours, each in an environment of its own named after its lock.
.PHONY: bench-peers lock-peers
bench: packages
bench-peers: .venv-bench/.ready .venv-bench-litellm-1.80/.ready

.venv-%/.ready: $R/%.txt $V/.boot
	@$(PYTHON) -m venv --without-pip .venv-$*
	$(call install,.venv-$*,$(WHEELS) -r $<)
	touch $@

lock: lock-peers
lock-peers: $V/.boot
	@cd $R; C="../$C"
	for set in bench bench-litellm-1.80; do $$C $$set.in -o $$set.txt; done
	! grep -nE '://|^-' bench*.txt
