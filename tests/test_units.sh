#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Code compiled for one instruction set may be reached only through its table: if two units define a function, the linker keeps either
# one, which then also runs on processors that lack its instructions. So units with their own flags export data and no functions,
# and no unit of the backend has a weak symbol. The units that tests/simde compiles for AVX2 have no instruction of AVX-512 or AVX-VNNI.
set -euo pipefail
build=$2
command -v nm >/dev/null || { echo "skipped: there is no nm"; exit 77; }
commands=$build/compile_commands.json
units=$(perl -MJSON::PP -e 'local $/; for (@{decode_json(<STDIN>)}) { print "$_->{directory}/$1\n" if $_->{file} =~ m{/src/ops/cpu/} && $_->{command} !~ m{/tests/simde/} && $_->{command} =~ / -mavx/ && $_->{command} =~ / -o (\S+)/ }' <"$commands")
objects=$(find "$build" -path '*bb_*.dir/src/ops/cpu/*.o')
[ -n "$objects" ] || { echo "FAIL: no objects in $build" >&2; exit 1; }
case $(uname -m) in
  x86_64) [ "$(wc -w <<<"$units")" -ge 5 ] || { echo "FAIL: few units have flags of their own: $units" >&2; exit 1; } ;;
esac
failures=0
for object in $objects; do
  if nm -u "$object" | grep -qE '__(asan|ubsan|tsan)_'; then echo "skipped: a sanitizer adds symbols"; exit 77; fi
  weak=$(nm --defined-only "$object" | awk '$2 ~ /^[WVuvw]$/ { print $3 }')
  [ -z "$weak" ] || { echo "FAIL: weak symbols in $object: $weak" >&2; failures=1; }
done
for object in $units; do
  functions=$(nm --defined-only --extern-only "$object" | awk '$2 == "T" { print $3 }')
  [ -z "$functions" ] || { echo "FAIL: functions that other units can call in $object: $functions" >&2; failures=1; }
done
while IFS= read -r object; do
  [ -n "$object" ] || continue
  if objdump -d "$object" | grep -qE '%(zmm|k[0-7]|[xy]mm(1[6-9]|2[0-9]|3[01]))|vpdp'; then echo "FAIL: compiled for AVX-512 or AVX-VNNI: $object" >&2; failures=1; fi
done <<<"$(find "$build" -path '*/bb_simde_*.dir/*.o')"
[ "$failures" = 0 ] && echo "$(wc -w <<<"$units") units with instruction sets of their own export tables alone"
exit $failures
