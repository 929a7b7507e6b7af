#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The kernels of src/ops/cuda ($1) compile without a warning for every architecture that is shipped, and none of them spills registers to
# memory, beyond the few bytes that the slow paths of division and sqrt, which are calls, save. $2: nvcc, "" to look for one; the test is skipped without. What ptxas says is left in $3, for docs/PERFORMANCE.md.
set -uo pipefail
sources=$1 nvcc=${2:-$(command -v nvcc)} report=$3
if [ -z "$nvcc" ]; then echo "skipped: there is no nvcc"; exit 77; fi
launcher=$(command -v ccache)
architectures=()
for name in 80 89 90a 100; do architectures+=(-gencode "arch=compute_$name,code=sm_$name"); done
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
failed=0
: >"$report"
for source in "$sources"/src/ops/cuda/*.cu; do
    if ! ${launcher:+"$launcher"} "$nvcc" -std=c++17 -O3 -fmad=false -Xcompiler=-Wall,-Wextra,-fPIC -Werror=all-warnings -Xptxas -v \
        "${architectures[@]}" -I"$sources/src" -I"$sources/include" -c "$source" -o "$directory/object.o" >"$directory/log" 2>&1; then
        echo "FAILED: $source"
        cat "$directory/log"
        failed=1
        continue
    fi
    awk -v file="$(basename "$source")" '
        /Compiling entry function/ { kernel = $0; sub(/.*entry function .?/, "", kernel); sub(/. for .*/, "", kernel); card = $NF }
        /bytes spill stores/ { # an array that is not in registers is in the stack frame, and as slow
            match($0, /[0-9]+ bytes stack frame/); spilled = substr($0, RSTART) + 0
            match($0, /[0-9]+ bytes spill stores/); if (substr($0, RSTART) + 0 > spilled) spilled = substr($0, RSTART) + 0
        }
        /Used [0-9]+ registers/ { print file, kernel, card, $0, spilled; if (spilled > 16) bad = 1 }
        END { exit bad }' "$directory/log" >>"$report" || { echo "FAILED: a kernel of $source spills registers:"; awk '$NF > 16' "$report"; failed=1; }
done
echo "$(wc -l <"$report") kernels"
exit $failed
