#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds bitbyte, installs torch from PyPI, trains the same model with both and prints one table; options are compare_torch.py's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${BENCH_VENV:-build/bench-venv} # 5 GB: torch's wheel brings CUDA, and does not load without it
torch=${BENCH_TORCH:-torch}          # a pip requirement, such as torch==2.9.1
case " $* " in *" --help "* | *" -h "*) exec python3 bench/compare_torch.py "$@" ;; esac

make ${SKIP_DEPS:+SKIP_DEPS=1}
[ -n "${SKIP_DEPS:-}" ] || scripts/install-deps --bench
# Whole or not there: an installation that was broken off is made again.
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$torch" ]; then
    echo "installing $torch into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --no-cache-dir "$torch"
    echo "$torch" >"$venv/installed"
fi
exec "$venv/bin/python" bench/compare_torch.py "$@"
