#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte serve, by clients of Python's standard library: serve_checks.py.
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
"$bitbyte" serve missing --port 0 >out 2>err && fail "a model that is not there was served"
if grep -qF "has no HTTP server" err; then echo "skipped: this build is without libmicrohttpd"; exit 77; fi
complains "missing"
expect 2 "$bitbyte" serve run --chat_template "{content}"
complains "expected a text with {role} and {content}"
expect 2 "$bitbyte" serve run --chat_template '{role}\q{content} '
complains "unknown escape"
expect 0 "$bitbyte" train --data text.txt --out run "${tiny[@]}" --seq_len 256 --steps 100 --log_every 10 --lr 1e-2 --seed 1
expect 0 "$bitbyte" train --data text.txt --out other "${tiny[@]}" --seq_len 256 --steps 100 --log_every 10 --lr 1e-2 --seed 2
expect 0 "$bitbyte" train --data text.txt --out narrow "${tiny[@]}" --d_model 16 --seq_len 256 --steps 2
expect 0 "$bitbyte" export narrow --out narrow.safetensors
expect 0 "$bitbyte" export run --out model.safetensors
expect 0 "$bitbyte" export other --out other.safetensors
for i in $(seq 1 400); do printf '<user> %d</user>\n<assistant> yes!</assistant>\n' "$((i % 7))"; done >chats
expect 0 "$bitbyte" train --data chats --out chat "${tiny[@]}" --seq_len 128 --batch_size 8 --steps 400 --log_every 10 --lr 1e-2 --seed 1
expect 0 "$bitbyte" export chat --out templated.safetensors --chat_template '<{role}> {content}</{role}>\n'
mkdir runs
cp -r run runs/a && cp -r other runs/b && cp -r run 'runs/<b>'
expect 2 "$bitbyte" serve
complains "MODEL is missing"
expect 1 "$bitbyte" serve --runs text.txt
complains "expected a folder of run directories"
: >empty
expect 1 "$bitbyte" serve model.safetensors --api_key_file empty --port 0
complains "empty: contains no key"
expect 2 "$bitbyte" serve model.safetensors --api_key "" --port 0
complains "the key is empty"
PYTHONDONTWRITEBYTECODE=1 python3 "$here/serve_checks.py" "$bitbyte" >out 2>err || fail "serve_checks.py"
cat out
