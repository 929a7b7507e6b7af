#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The Python package with the library of this build. Needs no network: `make test-python` creates the environment.
set -euo pipefail
build=$(realpath "$2")
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=${PYTHON_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/bitbyte-python}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

python=
for candidate in "$environment/bin/python" python3; do
    if "$candidate" -c 'import cffi, numpy, pytest' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || { echo "skipped: no Python with cffi, numpy and pytest; make test-python makes one"; exit 77; }

export PYTHONDONTWRITEBYTECODE=1 BITBYTE_LIBRARY=$build/libbitbyte.so PYTHONPATH=$tmp
mkdir "$tmp/bitbyte"
cp "$source_dir"/python/bitbyte/* "$tmp/bitbyte/"
"$python" "$source_dir/python/declarations.py" "$source_dir/include" "$tmp/bitbyte/_declarations.py" >/dev/null
"$python" -m pytest -q --tb=short -p no:cacheprovider --basetemp="$tmp/pytest" "$source_dir/python/tests"
