#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The page of `bitbyte serve` in a real browser: page_checks.py, if Debian's chromium, chromium-driver and python3-selenium are installed.
# The screenshots stay in page_screenshots of the build folder.
set -u
here=$(cd "$(dirname "$0")" && pwd)
screenshots=$2/page_screenshots
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

python=/usr/bin/python3
command -v chromium >/dev/null && command -v chromedriver >/dev/null && "$python" -c 'import selenium' 2>/dev/null ||
    { echo "skipped: chromium, chromium-driver and python3-selenium are not there"; exit 77; }
"$bitbyte" serve missing --port 0 >out 2>err
if grep -qF "has no HTTP server" err; then echo "skipped: this build is without libmicrohttpd"; exit 77; fi
# A model that writes markup, whatever it is asked.
for ((i = 0; i < 300; i++)); do printf '<script>alert(%d)</script><img src=x onerror="alert(1)">caf\303\251 &amp;\n' "$i"; done >markup.txt
expect 0 "$bitbyte" train --data markup.txt --out run "${tiny[@]}" --seq_len 128 --batch_size 4 --steps 250 --lr 2e-2
mkdir -p "$screenshots"
PYTHONDONTWRITEBYTECODE=1 "$python" "$here/page_checks.py" "$bitbyte" run "$screenshots" >out 2>err || fail "page_checks.py"
cat out
