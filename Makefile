# SPDX-License-Identifier: MIT
# BitByte's front door; CMake does the work. `make help` lists the commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

BUILD ?= build
JOBS ?= $(shell nproc)
# Many tests wait for timeouts and for other processes: twice as many as processors keep those busy.
TEST_JOBS ?= $(shell echo $$((2 * $$(nproc))))
PREFIX ?= /usr/local
WERROR ?= OFF
FUZZ_SECONDS ?= 30
SOAK_SECONDS ?= 3600
LOAD_SECONDS ?= 600
BENCH_ARGS ?=
PYTHON_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bitbyte-python
SKIP_DEPS ?=
CUDA ?=

DEPS = $(if $(SKIP_DEPS),true,scripts/install-deps $(if $(filter-out off auto,$(CUDA)),--cuda))
SOURCES = $(shell git ls-files -co --exclude-standard 'include/*.h' 'src/*.[ch]' 'src/*.cu' 'programs/*.[ch]' 'tests/*.[ch]' 'examples/*.c' \
  2>/dev/null || find include src programs tests examples -name '*.[ch]' -o -name '*.cu')
CLANG_FORMAT = $(or $(shell command -v clang-format-14),clang-format)

# $(call configure,DIR,OPTIONS): Ninja where there is one, and a build folder keeps the generator that it began with.
configure = generator=(); if [ ! -f $(1)/CMakeCache.txt ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi; \
  cmake -S . -B $(1) "$${generator[@]}" $(2) >$(1).log 2>&1 || { cat $(1).log; rm -f $(1).log; exit 1; }; rm -f $(1).log
# Tests run beside each other with threads of their own: waiting threads must not spin on the cores of the others.
ctest = OMP_WAIT_POLICY=passive ctest --test-dir $(1) -j $(TEST_JOBS) --output-on-failure --no-tests=error

.PHONY: all help deps configure test soak load demo bench check-layers check-format format lint asan ubsan tsan valgrind test-aarch64 test-interop test-python fuzz deb install uninstall clean

all: configure ## install missing packages and build build/bitbyte
	@cmake --build $(BUILD) -j $(JOBS)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

deps: ## install missing Debian packages
	@$(DEPS)

configure: deps
	@$(call configure,$(BUILD),-DBB_WERROR=$(WERROR) $(if $(CUDA),-DBB_CUDA=$(if $(filter auto off,$(CUDA)),$(CUDA),on)))

test: all ## build, and run every test
	@$(call ctest,$(BUILD))

soak: all ## train under kills, stops, full disks and changing ranks for SOAK_SECONDS, compared with an undisturbed twin
	@bash tests/soak.sh $(BUILD)/bitbyte $(SOAK_SECONDS)

load: all ## 64 clients of serve for LOAD_SECONDS: streams, leavers, slow readers, half requests, nonsense; every answer is checked
	@bash tests/serve_load.sh $(BUILD)/bitbyte $(BUILD) $(LOAD_SECONDS)

demo: ## train on the King James Bible for three minutes, evaluate, generate text
	@scripts/demo

bench: all ## time the operations and a training step
	@$(BUILD)/bitbyte bench $(BENCH_ARGS)

check-layers: ## check includes against the architecture's arrows
	@scripts/check-layers

check-format: ## check that clang-format changes nothing
	@$(if $(SKIP_DEPS),true,scripts/install-deps --lint)
	@$(CLANG_FORMAT) --dry-run -Werror $(SOURCES)
	@echo "check-format: $(words $(SOURCES)) files are formatted"

format: ## clang-format all sources
	@$(if $(SKIP_DEPS),true,scripts/install-deps --lint)
	@$(CLANG_FORMAT) -i $(SOURCES)

lint: configure ## clang-tidy
	@$(if $(SKIP_DEPS),true,scripts/install-deps --lint)
	@printf '%s\n' $(filter-out tests/% $(if $(filter aarch64,$(shell uname -m)),,%_neon_kernels.c),$(filter %.c,$(SOURCES))) | \
	  xargs -P $(JOBS) -n 4 clang-tidy --quiet -p $(BUILD) 2> >(grep -vE 'warnings? generated|^Suppressed|^Use -header' >&2)
	@echo "lint: clang-tidy found no problems"

asan: ## run the tests under AddressSanitizer (with leak detection)
	@$(if $(SKIP_DEPS),true,scripts/install-deps --sanitizers)
	@$(call configure,build-asan,-DBB_SANITIZE=address)
	@cmake --build build-asan -j $(JOBS)
	@ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/suppressions/lsan.supp:print_suppressions=0 $(call ctest,build-asan)

ubsan: ## run the tests under UndefinedBehaviorSanitizer
	@$(if $(SKIP_DEPS),true,scripts/install-deps --sanitizers)
	@$(call configure,build-ubsan,-DBB_SANITIZE=undefined)
	@cmake --build build-ubsan -j $(JOBS)
	@UBSAN_OPTIONS=print_stacktrace=1 $(call ctest,build-ubsan)

# gcc's OpenMP library is opaque to TSan and gives false reports; clang's tells it about barriers through archer.
tsan: ## run the threaded tests under ThreadSanitizer
	@$(if $(SKIP_DEPS),true,scripts/install-deps --sanitizers)
	@$(call configure,build-tsan,-DBB_SANITIZE=thread -DCMAKE_C_COMPILER=clang)
	@cmake --build build-tsan -j $(JOBS)
	@TSAN_OPTIONS=ignore_noninstrumented_modules=1 OMP_TOOL_LIBRARIES=$$(llvm-config --libdir)/libarcher.so $(call ctest,build-tsan) -L threads

# valgrind knows no AVX-512, so the kernels, oneDNN's among them, are held to AVX2.
valgrind: ## run the test programs under valgrind
	@$(if $(SKIP_DEPS),true,scripts/install-deps --sanitizers)
	@$(call configure,build-valgrind,"-DBB_TEST_WRAPPER=valgrind;--quiet;--leak-check=full;--errors-for-leak-kinds=definite;--error-exitcode=99;--suppressions=$(CURDIR)/tests/suppressions/valgrind.supp")
	@cmake --build build-valgrind -j $(JOBS)
	@BITBYTE_CPU=avx2 $(call ctest,build-valgrind) -LE "script|slow"

# A cross-build, run by qemu, one program at a time. Left out are training's own tests (`slow`), which take half an hour there, while
# golden trains too; and the shell tests that build for this machine (install, public_header, docs), that time or kill what qemu
# slows (bench, interrupt, kill), or that test what the programs test (damage).
test-aarch64: ## cross-build for aarch64, and run the tests under qemu
	@$(if $(SKIP_DEPS),true,scripts/install-deps --aarch64)
	@scripts/aarch64-sysroot build-aarch64/sysroot
	@$(call configure,build-aarch64,--toolchain cmake/aarch64-linux-gnu.cmake -DCMAKE_SYSROOT=$(CURDIR)/build-aarch64/sysroot)
	@cmake --build build-aarch64 -j $(JOBS)
	@$(call ctest,build-aarch64) -j1 -LE slow

fuzz: ## run every fuzz target for FUZZ_SECONDS, or for FUZZ_RUNS inputs, the same each time
	@$(if $(SKIP_DEPS),true,scripts/install-deps --fuzz)
	@$(call configure,build-fuzz,-DBB_FUZZ=ON -DBB_TESTS=OFF -DBB_SANITIZE=address$(comma)undefined -DCMAKE_C_COMPILER=clang)
	@cmake --build build-fuzz -j $(JOBS) --target fuzz_targets
	@for target in build-fuzz/fuzz/fuzz_*; do \
	  name=$$(basename $$target); seeds=tests/fuzz/seeds/$${name#fuzz_}; words=tests/fuzz/dictionaries/$${name#fuzz_}.dict; \
	  mkdir -p build-fuzz/corpus/$$name; \
	  echo "== $$name, $(if $(FUZZ_RUNS),$(FUZZ_RUNS) inputs,$(FUZZ_SECONDS) s)"; \
	  $$target $(if $(FUZZ_RUNS),-runs=$(FUZZ_RUNS) -seed=1,-max_total_time=$(FUZZ_SECONDS)) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    $$([ -f $$words ] && echo -dict=$$words) -artifact_prefix=build-fuzz/$$name- build-fuzz/corpus/$$name $$([ -d $$seeds ] && echo $$seeds) >build-fuzz/$$name.log 2>&1 || \
	    { tail -n 40 build-fuzz/$$name.log; exit 1; }; \
	  grep -E 'number_of_executed_units|average_exec_per_sec' build-fuzz/$$name.log; done

test-interop: all ## PyTorch, transformers, gguf and llama.cpp, from PyPI into INTEROP_DIR (6 GB): test that models open there and here
	@$(if $(SKIP_DEPS),true,scripts/install-deps --interop)
	@bash tests/interop/run.sh $(BUILD)

test-python: all ## test the Python package with numpy, cffi and pytest from PyPI, in PYTHON_DIR
	@$(if $(SKIP_DEPS),true,scripts/install-deps --python)
	@[ -x $(PYTHON_DIR)/bin/pytest ] || { python3 -m venv $(PYTHON_DIR) && $(PYTHON_DIR)/bin/pip -q --disable-pip-version-check install numpy cffi pytest; }
	@PYTHON_DIR=$(PYTHON_DIR) bash tests/test_python.sh $(BUILD)/bitbyte $(BUILD)

deb: deps ## Debian packages of the program, the library and its header, in build-deb/packages; lintian checks them if it is installed
	@$(call configure,build-deb,-DCMAKE_INSTALL_PREFIX=/usr -DBB_TESTS=OFF -DBB_WERROR=$(WERROR))
	@cmake --build build-deb -j $(JOBS)
	@scripts/make-deb build-deb build-deb/packages
	@if command -v lintian >/dev/null; then lintian --fail-on error,warning --allow-root build-deb/packages/*.deb; fi

# An installation elsewhere shows what there will be, and so which folders are new: uninstall takes those with it, and no others. (CMake's
# own list is of whatever was installed last from the build folder, packages too.)
install: all ## install under PREFIX (/usr/local)
	@elsewhere=$$(mktemp -d); trap 'rm -rf "$$elsewhere"' EXIT; DESTDIR=$$elsewhere cmake --install $(BUILD) --prefix "$(PREFIX)" >/dev/null; \
	  find "$$elsewhere" -mindepth 1 ! -type d -printf '$(DESTDIR)/%P\n' >>$(BUILD)/installed_files.txt; \
	  find "$$elsewhere" -mindepth 1 -type d -printf '$(DESTDIR)/%P\n' | while IFS= read -r folder; do [ -d "$$folder" ] || echo "$$folder"; done >>$(BUILD)/installed_folders.txt
	@cmake --install $(BUILD) --prefix "$(PREFIX)"

uninstall: ## remove what install installed
	@[ -f $(BUILD)/installed_files.txt ] || { echo "uninstall: $(BUILD) installed nothing"; exit 1; }
	@sort -u $(BUILD)/installed_files.txt | xargs -d '\n' rm -fv
	@sort -ru $(BUILD)/installed_folders.txt | xargs -r -d '\n' rmdir --ignore-fail-on-non-empty
	@rm $(BUILD)/installed_files.txt $(BUILD)/installed_folders.txt

clean: ## remove the build folders
	@rm -rf build build-asan build-ubsan build-tsan build-valgrind build-aarch64 build-fuzz build-deb

comma := ,
