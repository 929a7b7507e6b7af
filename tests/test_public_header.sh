#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte.h and the headers that it includes compile alone in C and C++, and the shared library exports exactly what they declare.
set -euo pipefail
build=$2
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
header=$source_dir/include/bitbyte.h
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "test_public_header: $1" >&2; exit 1; }

# Nothing before it, twice, without GNU extensions, with every warning an error.
printf '#include "bitbyte.h"\n#include "bitbyte.h"\nconst char *use(void);\nconst char *use(void) { return bb_version(); }\n' >"$tmp/use.c"
for topic in "$source_dir"/include/bitbyte/*.h; do
    name=$(basename "$topic" .h)
    sed "s|\"bitbyte.h\"|\"bitbyte/$name.h\"|" "$tmp/use.c" >"$tmp/use_$name.c"
    [ "$(wc -l <"$topic")" -le 260 ] || fail "bitbyte/$name.h has $(wc -l <"$topic") lines; split it by topic"
    grep -qF "bitbyte/$name.h " "$header" || fail "bitbyte.h does not say what bitbyte/$name.h holds"
    # Its own test is skipped where there is no cffi.
    grep -q "^TOPICS = .*\"$name\"" "$source_dir/python/declarations.py" || fail "python/declarations.py does not read bitbyte/$name.h"
done
strict=(-c -I"$source_dir/include" -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
for std in c99 c11; do
    for use in "$tmp"/use*.c; do
        "${CC:-cc}" -std=$std "${strict[@]}" -Wstrict-prototypes "$use" -o "$tmp/use.o" || fail "$(head -n 1 "$use") is not $std on its own"
    done
done
if command -v "${CXX:-c++}" >/dev/null; then
    for std in c++11 c++17; do
        for use in "$tmp"/use_*.c "$tmp/use.c"; do
            "${CXX:-c++}" -std=$std "${strict[@]}" -x c++ "$use" -o "$tmp/use.o" || fail "$(head -n 1 "$use") is not $std on its own"
        done
        nm -u "$tmp/use.o" | grep -qE ' bb_version$' || fail "in C++ the functions do not have C linkage"
    done
else
    echo "test_public_header: no C++ compiler, so C++ is not checked"
fi

# Whatever the preprocessor leaves that looks like bb_name( is a function's declaration: comments and macros are gone by then; and
# with bb_name (* begins the type of a function's pointer. Inline functions (BB_OPTIONS) are no symbols.
"${CC:-cc}" -E -P "$header" | sed 's/static inline [^}]*}//g' | grep -oE '\bbb_[a-z0-9_]+ *\([^*]' | sed 's/ *(.$//' | sort -u >"$tmp/declared"
[ "$(wc -l <"$tmp/declared")" -gt 50 ] || fail "found only these declarations: $(paste -sd' ' "$tmp/declared")"
# The sanitizers, the linker and OpenMP add names of their own, which begin with an underscore or a dot.
nm -D --defined-only "$build/libbitbyte.so" | awk '$NF !~ /^[_.]/ {print $NF}' | sort -u >"$tmp/exported"
missing=$(comm -23 "$tmp/declared" "$tmp/exported" | paste -sd' ')
[ -z "$missing" ] || fail "declared in bitbyte.h, but not in libbitbyte.so: $missing"
extra=$(comm -13 "$tmp/declared" "$tmp/exported" | paste -sd' ')
[ -z "$extra" ] || fail "in libbitbyte.so, but not in bitbyte.h: $extra"

# The same from the static library's side: no name that could clash with a program's own.
nm --defined-only --extern-only "$build/libbitbyte.a" 2>/dev/null | awk 'NF == 3 && $3 !~ /^(bb_|_|[.])/ {print $3}' | sort -u >"$tmp/clashing"
[ ! -s "$tmp/clashing" ] || fail "names in libbitbyte.a without the prefix bb_: $(paste -sd' ' "$tmp/clashing")"

# Each is called with NULLs by a test.
{
    grep -ohE '\bbb_[a-z0-9_]+' "$source_dir/tests/test_arguments.c"
    sed -n 's/^TYPE(\(.*\));$/\1_init/p' "$source_dir/tests/test_options.c"
} | sort -u >"$tmp/tested"
untested=$(comm -23 "$tmp/declared" "$tmp/tested" | paste -sd' ')
[ -z "$untested" ] || fail "in bitbyte.h, but not in tests/test_arguments.c or test_options.c: $untested"
echo "$(wc -l <"$tmp/declared") functions: declared, exported, and nothing else"
