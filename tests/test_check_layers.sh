#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# scripts/check-layers finds includes against the arrows, and cycles among the files of a room, in a source tree made for this test.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "test_check_layers: $1" >&2; cat "$tmp/out" >&2; exit 1; }
says() { grep -qF -- "$1" "$tmp/out" || fail "does not say: $1"; }
check() { # STATUS
    local got=0
    "$tmp/scripts/check-layers" >"$tmp/out" 2>&1 || got=$?
    [ "$got" = "$1" ] || fail "exit status $got instead of $1"
}
mkdir -p "$tmp/scripts" "$tmp/include" "$tmp/programs" "$tmp/examples" "$tmp/src/core" "$tmp/src/inference"
cp "$source_dir/scripts/check-layers" "$source_dir/scripts/cycles.awk" "$tmp/scripts/"
: >"$tmp/include/bitbyte.h"
cd "$tmp/src/inference"

# A line of files, with what must not count as a use: comments, statics, a name that another room defines.
printf '#include "inference/middle.h"\n' >top.c
printf 'void bb_middle(void);\n' >middle.h
printf '#include "inference/middle.h"\n#include "inference/bottom.h"\n/* bb_top */ void bb_middle(void) { bb_bottom(); }\n' >middle.c
printf 'void bb_bottom(void);\n' >bottom.h
printf '#include "inference/bottom.h"\nvoid bb_bottom(void) {} // bb_middle\n/* bb_middle\n   bb_middle */\n' >bottom.c
check 0

# Two headers' files.
printf '#include "inference/middle.h"\n' >>bottom.c
check 1
says "inference: a cycle of files: bottom middle"
says "bottom uses middle: inference/middle.h"
sed -i '$d' bottom.c
check 0

# Files around one header: what they call tells, whichever header declares it, and however its definition is laid out.
printf 'void bb_left(int a);\nvoid bb_right(void);\nextern const int bb_table[];\n' >all.h
printf '#include "inference/all.h"\nvoid bb_left(int a,\n             int b) {\n    bb_right();\n}\n' >left.c
printf '#include "inference/all.h"\nvoid bb_right(void) {}\n' >right.c
check 0
printf '#include "inference/all.h"\nvoid bb_right(void) { bb_left(0); }\n' >right.c
check 1
says "inference: a cycle of files: left right"
says "right uses left: bb_left"
printf '#include "inference/all.h"\nconst int bb_table[] = {1};\nvoid bb_right(void) {}\n' >right.c
printf '#include "inference/all.h"\nvoid bb_left(int a) { (void)bb_table[0]; bb_third(); }\n' >left.c
printf 'void bb_third(void) { bb_right(); }\n' >third.c
check 0
printf 'void bb_right(void) { bb_left(0); }\n' >>right.c
check 1
says "inference: a cycle of files: left right third"
rm left.c right.c third.c

# The arrows.
printf '#include "inference/bottom.h"\n' >../core/low.c
check 1
says "core may include only"
