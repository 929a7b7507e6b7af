#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Typical user data: compressed, through pipes, in folders, of other kinds; each is read, or a message says what to do.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

gzip -k text.txt
xz -k text.txt
bzip2 -k text.txt
{ printf '\377\376'; iconv -f UTF-8 -t UTF-16LE text.txt; } >text.utf16
"$bitbyte" train --data text.txt --out run --steps 2 "${tiny[@]}" >out 2>err || fail "train"
eval=("$bitbyte" eval run --threads 1 --device "$device" --json)
generate=("$bitbyte" generate run --threads 1 --device "$device" --temperature 0 --max_new_bytes 20)
# score DATA OPTIONS…: its loss and bytes
score() { "${eval[@]}" "$@" >out 2>err || fail "eval $*"; echo "$(json_value out loss) $(json_value out bytes)"; }

# ---- eval: what the text holds decides, not its name, nor where it comes from
for options in "" "--seq_len 17 --batch_size 3 --sliding" "--batches 2"; do
    # shellcheck disable=SC2086
    wanted=$(score text.txt $options)
    for data in text.txt.gz text.txt.xz text.txt.bz2 text.utf16; do
        # shellcheck disable=SC2086
        [ "$(score $data $options)" = "$wanted" ] || fail "eval $data $options: $(cat out), expected $wanted"
    done
    # shellcheck disable=SC2086
    [ "$(score - $options <text.txt.gz)" = "$wanted" ] || fail "eval - $options"
    # shellcheck disable=SC2086
    [ "$(score <(cat text.txt) $options)" = "$wanted" ] || fail "eval <(…) $options"
    # shellcheck disable=SC2086
    [ "$(cat text.txt | score /dev/stdin $options)" = "$wanted" ] || fail "eval /dev/stdin $options"
done
mkfifo pipe
cat text.txt >pipe &
[ "$(score pipe --batches 2)" = "$wanted" ] || fail "eval of a named pipe"
wait
# an endless text is read as far as it is scored
[ "$(yes "$(cat text.txt)" | score - --batches 2)" = "$wanted" ] || fail "eval of an endless text"
expect 1 "${eval[@]}" /dev/null
complains "/dev/null: nothing to score"
head -c 700 text.txt.gz >cut.gz
expect 1 "${eval[@]}" cut.gz
complains "cut.gz: gzip data is truncated"

# ---- prompts
expect 0 "${generate[@]}" --prompt_file text.txt
cp out wanted
for file in text.txt.gz text.txt.xz text.txt.bz2 text.utf16; do
    expect 0 "${generate[@]}" --prompt_file "$file"
    cmp out wanted || fail "--prompt_file $file"
done
expect 0 "${generate[@]}" --prompt_file <(cat text.txt)
cmp out wanted || fail "--prompt_file <(…)"
"${generate[@]}" --prompt_file /dev/stdin <text.txt >out 2>err || fail "--prompt_file /dev/stdin"
cmp out wanted || fail "--prompt_file /dev/stdin: another text"
expect 1 "${generate[@]}" --prompt_file absent
complains "absent: cannot open: No such file"

# ---- pack
expect 0 "$bitbyte" pack text.txt.gz text.txt.xz text.txt.bz2 text.utf16 --sep_byte -1 --out_dir packed
cat text.txt text.txt text.txt text.txt | cmp - packed/shard_00000.bin || fail "pack of compressed text and UTF-16"
printf '{"text": "one", "score": NaN}\n{"text": "two"}\n' | "$bitbyte" pack - --input_format jsonl --sep_byte 10 --out_dir lines \
    >out 2>err || fail "pack - --input_format jsonl"
printf 'one\ntwo' | cmp - lines/shard_00000.bin || fail "JSON lines from standard input"
expect 0 "$bitbyte" pack <(printf '{"text": "one"}\n') --input_format jsonl --out_dir piped
printf one | cmp - piped/shard_00000.bin || fail "JSON lines from a pipe"
expect 2 "$bitbyte" pack text.txt --input_format jsonl --json_key '' --out_dir none
complains "needs --json_key, which is empty"
mkdir folder
cp text.txt folder/a.txt
printf x >folder/b.bin
printf y >folder/c
expect 0 "$bitbyte" pack folder --out_dir some
complains "2 files of the folders are skipped because of their extension (exts): 1 without an extension, 1 .bin"
[ "$(json_value some/manifest.json left_out_count)" = 2 ] || fail "the manifest's left_out_count"
expect 0 "$bitbyte" pack folder --exts all --out_dir every --json
[ "$(json_value out files) $(json_value out left_out)" = "3 0" ] || fail "--exts all"
[ ! -s err ] || fail "--exts all leaves nothing out"

# ---- no text, and what training cannot read at random offsets
model=run/step-00000002.safetensors
printf 'GGUF\3\0\0\0rest' >model.gguf
for data in "$model" model.gguf; do
    expect 1 "$bitbyte" train --data "$data" --out none --steps 1 "${tiny[@]}"
    complains "this is a model, not text"
    expect 1 "${eval[@]}" "$data"
    complains "this is a model, not text"
    expect 1 "${generate[@]}" --prompt_file "$data"
    complains "this is a model, not text"
    expect 1 "$bitbyte" pack "$data" --out_dir none
    complains "this is a model, not text"
done
for data in text.txt.gz text.txt.xz text.txt.bz2 text.utf16; do
    expect 1 "$bitbyte" train --data "$data" --out none --steps 1 "${tiny[@]}"
    complains "first: bitbyte pack $tmp/$data --out_dir DIR"
done
expect 2 "$bitbyte" train --data - --out none --steps 1 "${tiny[@]}"
complains "first: bitbyte pack - --out_dir DIR"
expect 1 "$bitbyte" train --data folder --out none --steps 1 "${tiny[@]}"
complains "if it holds texts, first: bitbyte pack $tmp/folder --out_dir DIR"
expect 1 "${eval[@]}" folder
complains "if it holds texts, first: bitbyte pack folder --out_dir DIR"
[ ! -e none ] || fail "a run or a pack that could not be left its directory"
# a shard is bytes, whatever it begins with
mkdir odd
cp text.txt.gz odd/shard_00000.bin
"$bitbyte" train --data odd --out odd_run --steps 1 "${tiny[@]}" >out 2>err || fail "train on a shard that begins like gzip"

# ---- a pack as held-out data
expect 0 "$bitbyte" pack text.txt --val_frac 0.25 --out_dir data
wanted=$(score "data/val_*.bin")
[ "$(score data)" = "$wanted" ] || fail "eval of a pack does not score its val_*.bin"
[ "$(json_value out pattern)" = "val_*.bin" ] || fail "eval --json does not say what was scored"
[ ! -s err ] || fail "eval of val_*.bin notes something"
[ "$(score packed)" = "$(score 'packed/shard_*.bin')" ] || fail "eval of a pack without val_*.bin"
score packed >/dev/null
complains "packed has no val_*.bin; scored its shard_*.bin"
validate() { "$bitbyte" train --data data --out "$1" --steps 2 --val_every 1 --val_data "$2" "${tiny[@]}" --val_seq_len 32 >out 2>err ||
    fail "train --val_data $2"; grep -o 'validation bpb .*' out; }
wanted=$(validate with_glob "data/val_*.bin")
[ "$(validate with_folder data)" = "$wanted" ] || fail "--val_data of a pack does not score its val_*.bin"
grep -q "holds no val" out && fail "a note about val_*.bin that are there"
wanted=$(validate with_text text.txt)
[ "$(validate with_gzip text.txt.gz)" = "$wanted" ] || fail "--val_data of compressed text"
validate without packed >/dev/null
[ "$(grep -c "holds no val_" out)" = 1 ] || fail "--val_data of a pack without val_*.bin is not noted once"
for data in - pipe; do
    expect 2 "$bitbyte" train --data data --out none --steps 2 --val_data "$data" "${tiny[@]}"
    complains "--val_data is read at each validation"
done
: >nothing
expect 1 "$bitbyte" train --data data --out none --steps 2 --val_data nothing "${tiny[@]}"
complains "nothing: nothing to score: 1 file, none of at least 2 bytes"
[ ! -e none ] || fail "a run begins with nothing to validate on"
echo "data is read as it comes, or refused with what to do"
