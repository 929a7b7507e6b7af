#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte pack: options, reports, exit statuses, and what a signal leaves.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

mkdir -p texts/sub
printf 'one' >texts/a.txt
printf 'two' | gzip >texts/sub/b.txt.gz
printf '{"story": "three"}\n{"n": 1, "inner": {"q": "four"}}\n' >texts/c.jsonl
printf 'no' >texts/d.bin

# Order, decompression and records; --inputs and plain arguments mean the same.
expect 0 "$bitbyte" pack --inputs texts --out_dir first --json_key story,q --sep_byte 124
printf 'one|three|four|two' | cmp - first/shard_00000.bin || fail "the shard's bytes"
says "4 documents from 3 files"
says "training   18 bytes in 1 shard"
expect 0 "$bitbyte" pack --out-dir=second --sep-byte=124 --json-key=story,q texts
cmp first/shard_00000.bin second/shard_00000.bin || fail "the same inputs gave other bytes"
[ "$(json_value first/manifest.json documents)" = 4 ] || fail "the manifest's documents"

# --exts takes several; '*' takes all. Keys: '' leaves JSON as it is.
expect 0 "$bitbyte" pack --inputs texts --exts bin txt --out_dir exts --sep_byte -1 --json
printf 'onenotwo' | cmp - exts/shard_00000.bin || fail "--exts bin txt"
[ "$(json_value out files)" = 3 ] || fail "--json says other files"
expect 0 "$bitbyte" pack texts/c.jsonl --json_key '' --out_dir raw
cmp texts/c.jsonl raw/shard_00000.bin || fail "--json_key ''"

# Validation is the end of it all; a sixteenth of 1600 bytes is 100.
head -c 1600 /dev/urandom >random.txt
expect 0 "$bitbyte" pack random.txt --out_dir split --val_frac 0.0625 --shard_size_gb 0.000001
cat split/shard_0000[01].bin split/val_00000.bin | cmp - random.txt || fail "the parts are not the whole"
[ "$(stat -c %s split/val_00000.bin)" = 100 ] || fail "val_00000.bin has not 100 bytes"
says "validation 100 bytes in 1 shard"

# Standard input.
printf 'piped' | "$bitbyte" pack - --out_dir piped >/dev/null 2>&1 || fail "packing standard input"
printf 'piped' | cmp - piped/shard_00000.bin || fail "standard input's bytes"

# What cannot be read is said one by one on standard error, skipped and counted; --strict stops there.
printf '{"text": oops}' >texts/bad.json
expect 0 "$bitbyte" pack absent texts --out_dir skips
complains "skipped absent: cannot read: No such file"
complains "skipped texts/bad.json: line 1: malformed JSON"
complains "skipped texts/c.jsonl: 1 of 2 records have no text under text,story,completion,content; the first is line 2"
says "skipped    3"
[ "$(json_value skips/manifest.json skipped_count)" = 3 ] || fail "the manifest's count of skipped"
expect 1 "$bitbyte" pack texts --out_dir strict --strict
complains "texts/bad.json: line 1: malformed JSON"
[ ! -e strict ] || fail "a strict pack that stopped left its directory"
printf '\037\213\010' >$'esc\033[31m.txt.gz'
expect 0 "$bitbyte" pack texts/a.txt $'esc\033[31m.txt.gz' --out_dir escapes
grep -q $'\033' err && fail "an escape sequence in a file's name reached the terminal"

# Nothing to pack, nowhere to pack, impossible values.
expect 1 "$bitbyte" pack absent --out_dir nothing
complains "the inputs contain no bytes"
expect 2 "$bitbyte" pack --out_dir nothing
expect 2 "$bitbyte" pack texts
for wrong in "--sep_byte 256" "--sep_byte -2" "--val_frac 1" "--val_frac -1" "--shard_size_gb 0" "--shard_size_gb nan"; do
    # shellcheck disable=SC2086
    expect 2 "$bitbyte" pack texts --out_dir nothing $wrong
done
expect 1 "$bitbyte" pack texts --out_dir random.txt
[ ! -e nothing ] || fail "a pack that could not be left its directory"

# An earlier pack is not overwritten unless asked.
expect 2 "$bitbyte" pack random.txt --out_dir first
complains "already holds a pack"
printf 'one|three|four|two' | cmp - first/shard_00000.bin || fail "the earlier pack changed"
expect 0 "$bitbyte" pack texts/a.txt --out_dir split --overwrite
[ "$(ls split)" = $'manifest.json\nshard_00000.bin' ] || fail "stale shards are left: $(ls split)"

# A signal while data still comes: exit status, and nothing left. Plain progress lines on the way.
for signal in INT:130 TERM:143; do
    mkfifo pipe
    "$bitbyte" pack pipe --out_dir stopped --shard_size_gb 0.0001 2>err &
    packer=$!
    yes >pipe &
    feeder=$!
    for ((i = 0; i < 400; i++)); do
        [ -e stopped/shard_00003.bin.part ] && break
        sleep 0.02
    done
    [ -e stopped/shard_00003.bin.part ] || fail "no shard is under way"
    kill -s "${signal%:*}" "$packer"
    wait "$packer"
    got=$?
    kill "$feeder" 2>/dev/null
    wait "$feeder" 2>/dev/null
    [ $got = "${signal#*:}" ] || fail "exit status $got after SIG${signal%:*}"
    complains "stopped"
    [ ! -e stopped ] || fail "a stopped pack left $(ls stopped)"
    rm pipe
done

# Kept waiting by a silent pipe it stops as well.
mkfifo pipe
"$bitbyte" pack - --out_dir stopped <pipe 2>err &
packer=$!
exec 9>pipe
sleep 0.3
kill -s INT "$packer"
wait "$packer"
got=$?
exec 9>&-
[ $got = 130 ] || fail "exit status $got after SIGINT while waiting"
[ ! -e stopped ] || fail "a stopped pack left $(ls stopped)"
echo "pack does what its help says"
