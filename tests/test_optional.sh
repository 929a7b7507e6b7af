#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Every file that uses an optional library also compiles without it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mapfile -t files < <(grep -rlE '^ *#.*BB_HAVE_' src programs --include='*.c')
[ ${#files[@]} -ge 3 ] || { echo "test_optional: only ${#files[@]} files use optional libraries" >&2; exit 1; }
for file in "${files[@]}"; do
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -Isrc -Iinclude -Wall -Wextra -Werror -fsyntax-only "$file" ||
        { echo "test_optional: $file does not compile without optional libraries" >&2; exit 1; }
done
echo "passed: ${#files[@]} files"
