#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `make load`: serve_load.py for SECONDS with a small model: serve_load.sh PROGRAM BUILD SECONDS.
set -u
here=$(cd "$(dirname "$0")" && pwd)
seconds=$3
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
expect 0 "$bitbyte" train --data text.txt --out run "${tiny[@]}" --seq_len 256 --steps 100 --log_every 10 --lr 1e-2 --seed 1
expect 0 "$bitbyte" export run --out model.safetensors
PYTHONDONTWRITEBYTECODE=1 python3 "$here/serve_load.py" "$bitbyte" model.safetensors "$seconds" || fail "serve_load.py"
