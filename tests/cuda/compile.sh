#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One file of kernels ($2) of the project ($1) compiles without a warning for every architecture that is shipped, and none of its kernels spills
# registers to memory, beyond the few bytes that the slow paths of division and sqrt, which are calls, save. $3: nvcc, "" to look for one; the
# test is skipped without. What ptxas says is left in $4, for bench/cuda_roofline.py.
set -uo pipefail
project=$1 source=$2 nvcc=${3:-$(command -v nvcc)} report=$4
if [ -z "$nvcc" ]; then echo "skipped: there is no nvcc"; exit 77; fi
launcher=$(command -v ccache)
architectures=()
for name in 75 80 89 90a 100; do architectures+=(-gencode "arch=compute_$name,code=sm_$name"); done
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
if ! ${launcher:+"$launcher"} "$nvcc" -std=c++17 -O3 -fmad=false -Xcompiler=-Wall,-Wextra,-fPIC -Werror=all-warnings -Xptxas -v \
    "${architectures[@]}" -I"$project/src" -I"$project/include" -c "$source" -o "$directory/object.o" >"$directory/log" 2>&1; then
    cat "$directory/log"
    exit 1
fi
mkdir -p "$(dirname "$report")"
awk -v file="$(basename "$source")" '
    /Compiling entry function/ { kernel = $0; sub(/.*entry function .?/, "", kernel); sub(/. for .*/, "", kernel); card = $NF }
    /bytes spill stores/ { # an array that is not in registers is in the stack frame, and as slow
        match($0, /[0-9]+ bytes stack frame/); spilled = substr($0, RSTART) + 0
        match($0, /[0-9]+ bytes spill stores/); if (substr($0, RSTART) + 0 > spilled) spilled = substr($0, RSTART) + 0
    }
    /Used [0-9]+ registers/ { print file, kernel, card, $0, spilled; if (spilled > 16) bad = 1 }
    END { exit bad }' "$directory/log" >"$report" || { echo "a kernel spills registers:"; awk '$NF > 16' "$report"; exit 1; }
echo "$(wc -l <"$report") kernels"
