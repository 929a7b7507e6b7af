#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs every command block of docs/QUICK_START.md after a <!-- run --> line, in order, in one shell, in an empty
# folder; and checks that every line of its C blocks is in examples/quick_start.c.
set -euo pipefail
program=$(realpath "$1")
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
guide=$source_dir/docs/QUICK_START.md
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "test_docs: $1" >&2; exit 1; }

awk '/^<!-- run -->$/ { marked = 1; next }
     /^```/ && inside { inside = 0; next }
     /^```sh$/ && marked { inside = 1; marked = 0; next }
     inside { print }' "$guide" >"$tmp/commands"
blocks=$(grep -c '^<!-- run -->$' "$guide")
[ "$blocks" -ge 5 ] && [ "$(wc -l <"$tmp/commands")" -ge "$blocks" ] || fail "found only $blocks blocks of commands in $guide"

mkdir "$tmp/bin" "$tmp/work"
ln -s "$program" "$tmp/bin/bitbyte"
# Open MPI keeps what it allocated.
printf 'mpirun() { ASAN_OPTIONS=detect_leaks=0 command mpirun "$@"; }\n' | cat - "$tmp/commands" >"$tmp/script"
(cd "$tmp/work" && PATH=$tmp/bin:$PATH bash -euxo pipefail "$tmp/script") >"$tmp/log" 2>&1 </dev/null ||
    { tail -n 40 "$tmp/log"; fail "a command of the guide failed"; }

awk '/^```c$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$guide" | sed -E 's/^[[:space:]]+|[[:space:]]+$//g' |
    grep -v '^$' >"$tmp/c_lines"
sed -E 's/^[[:space:]]+|[[:space:]]+$//g' "$source_dir/examples/quick_start.c" >"$tmp/example_lines"
[ -s "$tmp/c_lines" ] || fail "the guide has no C"
while IFS= read -r line; do
    grep -qxF -- "$line" "$tmp/example_lines" || fail "the guide's C has a line that examples/quick_start.c has not: $line"
done <"$tmp/c_lines"
echo "$blocks blocks of commands ran, $(wc -l <"$tmp/c_lines") lines of C are the example's"
