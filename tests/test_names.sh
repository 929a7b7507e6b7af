#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Paths that are not UTF-8 work everywhere; JSON has them as \xHH, and a resumed run finds them again. Common mistakes on the
# command line get a message with the right command.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

odd=$'caf\xe9 \\x41'  # Latin-1, and what looks like an escape
shown='caf\xe9 \x5cx41' # what JSON text says of it, once read
mkdir "$odd"
cd "$odd" || exit 1
cp ../text.txt "$odd.txt"
expect 0 "$bitbyte" pack "$odd.txt" --out_dir "data$odd" --val_frac 0.2 --json
[ "$(json_value "$tmp/out" out_dir)" = "data$shown" ] || fail "pack --json: out_dir"
[ "$(perl -MJSON::PP -e 'local $/; print decode_json(<>)->{inputs}[0]{path}' "data$odd/manifest.json")" = "$shown.txt" ] ||
    fail "the manifest's path"
train=("$bitbyte" train --data "data$odd" --val_data "data$odd" --val_seq_len 32 --steps 4 --save_every 2 "${tiny[@]}")
expect 0 "${train[@]}" --out "run$odd" --stop_at 2 --json
json_lines "$tmp/out" >/dev/null
[ "$(head -n 1 "$tmp/out" | perl -MJSON::PP -e 'print decode_json(<>)->{out}')" = "run$shown" ] || fail "train --json: out"
[ "$(json_value "run$odd/config.json" data)" = "$tmp/$shown/data$shown" ] || fail "config.json: data"
(cd / && expect 0 "$bitbyte" train --resume "$tmp/$odd/run$odd" --threads 1) || exit 1
expect 0 "${train[@]}" --out whole
cmp "run$odd/step-00000004.safetensors" whole/step-00000004.safetensors || fail "a resumed run differs"
for command in "eval;run$odd;data$odd;--json" "info;run$odd;--json" "info;run$odd;--verify;--json" "export;run$odd;--out;small$odd;--json" \
    "generate;run$odd;--prompt_file;$odd.txt;--max_new_bytes;4;--json" "eval;small$odd;$odd.txt;--json"; do
    IFS=';' read -ra words <<<"$command"
    expect 0 "$bitbyte" "${words[@]}"
    json_lines_of() { perl -MJSON::PP -e 'local $/; print encode_json(decode_json(<>))' "$1"; }
    json_lines_of "$tmp/out" | grep -qF 'caf\\xe9' || fail "${words[0]} --json does not name its path"
done
cd .. || exit 1
# UTF-8 stays as it is.
cp text.txt 'grün.txt'
expect 0 "$bitbyte" eval "$odd/whole" 'grün.txt' --json
[ "$(json_value out data)" = "grün.txt" ] || [ "$(perl -MJSON::PP -CS -e 'local $/; print decode_json(<>)->{data}' out)" = "grün.txt" ] || fail "a path in UTF-8"

# ---- what people type
run="$odd/whole"
cp text.txt other.txt
expect 2 "$bitbyte" train --data text.txt other.txt
complains "unexpected argument 'other.txt': put globs in quotes"
expect 2 "$bitbyte" eval "$run" text.txt other.txt
complains "put globs in quotes"
expect 2 "$bitbyte" train nothing_there --data text.txt
complains "unexpected argument 'nothing_there'"
mkdir folder
expect 2 "$bitbyte" pack --out_dir packed --exts txt folder
complains "--exts takes all arguments after it, including 'folder'; put PATH first, or write --inputs folder"
expect 2 "$bitbyte" generate "$run" -p Once
complains "did you mean '--prompt'?"
expect 2 "$bitbyte" train -o here
complains "did you mean '--out'?"
mkdir hugging_face
echo '{"architectures": ["X"]}' >hugging_face/config.json
: >hugging_face/model.safetensors
expect 1 "$bitbyte" generate hugging_face --prompt Once
complains "hugging_face/model.safetensors: expected a safetensors file of at least 8 bytes"
printf 'PK\003\004 and so on, and so on' >ckpt.pt
expect 1 "$bitbyte" generate ckpt.pt --prompt Once
complains "ckpt.pt: not a readable zip archive"
printf 'GGUF\003\000\000\000and so on' >model.gguf
expect 1 "$bitbyte" eval model.gguf text.txt
complains "model.gguf: byte 16: the header: expected 8 more bytes, found 1"
expect 1 "$bitbyte" generate "$odd/data$odd" --prompt Once
complains "a pack of data"
expect 2 "$bitbyte" export "$run" --out -
complains "--out -: cannot write a model to standard output"
[ ! -e ./- ] || fail "export --out - wrote a file named -"
echo "names are bytes, and mistakes are explained"
