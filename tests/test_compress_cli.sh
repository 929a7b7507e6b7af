#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte compress and decompress: files, pipes, zstd's command-line conventions, and what is refused.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
expect 0 "$bitbyte" train --data text.txt --out run --n_layer 2 --d_model 64 --n_head 2 --d_ff 128 --seq_len 64 --batch_size 16 \
    --grad_accum 1 --steps 150 --device "$device"
expect 0 "$bitbyte" export run --out packed.safetensors
export BITBYTE_MODEL=run
compress=("$bitbyte" compress --device "$device")
decompress=("$bitbyte" decompress --device "$device")

# ---- a file: far smaller than by zstd alone; comes back, with its mode and time
for ((i = 0; i < 60; i++)); do printf 'The %dth line says that %d and %d are not the same.\n' "$i" $((i * 9)) $((i * 9 + 1)); done >data
cp data original
chmod 640 data
touch -d '2001-02-03 04:05:06' data
expect 0 "${compress[@]}" data
complains "data: "
complains "bits per byte"
[ "$(stat -c '%a %Y' data.bby)" = "$(stat -c '%a %Y' data)" ] || fail "mode and time of data.bby"
expect 0 "$bitbyte" info data.bby --json
[ "$(json_value out bytes) $(json_value out compressed_bytes)" = "$(wc -c <data) $(wc -c <data.bby)" ] || fail "info data.bby"
json_value out blocks | grep -q '"model":1' || fail "info data.bby: blocks"
expect 1 "${decompress[@]}" data.bby
complains "data: already exists; use -f"
cmp data original || fail "data was touched"
rm data
expect 0 "${decompress[@]}" data.bby
cmp data original || fail "data came back changed"
[ "$(stat -c '%a %Y' data.bby)" = "$(stat -c '%a %Y' data)" ] || fail "mode and time of data"
expect 0 "${compress[@]}" -d -f data.bby
cmp data original || fail "compress -d -f"
expect 0 "${compress[@]}" -t data.bby
complains "good"
# the packed model is the same model
expect 0 "${decompress[@]}" -c --model packed.safetensors data.bby
cmp out original || fail "decompress with the packed model"

# ---- the example in C
if [ -x "$2/compress" ]; then
    expect 0 "$2/compress" packed.safetensors original
    says "the same"
fi

# ---- the same stream for any number of threads; other levels
for threads in 1 2; do
    "${compress[@]}" -q -c -T$threads data >t$threads 2>err || fail "compress -T$threads"
    [ ! -s err ] || fail "compress -q says something"
done
[ "$(cat t1 t2 | cksum)" = "$(cat data.bby data.bby | cksum)" ] || fail "the stream depends on the number of threads"
for level in 1 9; do
    "${compress[@]}" -$level <data >out$level 2>err || fail "compress -$level"
    "${decompress[@]}" <out$level 2>err | cmp - original || fail "compress -$level: another text"
done
[ "$(wc -c <out9)" -le "$(wc -c <out1)" ] || fail "-9 is larger than -1"
"${compress[@]}" --lanes 3 --block 64 --context_length 40 --kv_cache f32 -c data 2>err | "${decompress[@]}" -q | cmp - original || fail "compress --lanes"

# ---- mixing: smaller where the text is unlike the training data, and comes back by any way
for ((i = 0; i < 300; i++)); do printf 'x%d = [%d, %d]; if (x%d > %d) break;\n' "$i" $((i % 7)) $((i * 3 % 11)) "$i" $((i % 5)); done >code
for mix in on off; do
    "${compress[@]}" -6 --lanes 2 --mix $mix -c code >code.$mix 2>err || fail "compress --mix $mix"
    "${decompress[@]}" <code.$mix 2>err | cmp - code || fail "--mix $mix: another text"
done
[ "$(wc -c <code.on)" -lt $(($(wc -c <code.off) * 98 / 100)) ] || fail "--mix on gives $(wc -c <code.on), off $(wc -c <code.off)"
expect 0 "$bitbyte" info code.on --json
json_value out blocks | grep -q '"mixed":1' || fail "info: mixed blocks"

# ---- anything: empty, one byte, random, many blocks
: >empty
printf x >one
head -c 150000 /dev/urandom >random
head -c 200000 /dev/zero >zeros
for file in empty one random zeros; do
    "${compress[@]}" -q --block 64 -k $file 2>err || fail "compress $file"
    [ "$(wc -c <$file.bby)" -le $(($(wc -c <$file) * 1001 / 1000 + 64)) ] || fail "$file.bby is too large: $(wc -c <$file.bby)"
    "${decompress[@]}" -c $file.bby 2>err | cmp - $file || fail "$file came back changed"
done
expect 0 "${compress[@]}" -t -v empty.bby one.bby random.bby zeros.bby
[ "$(grep -c good err)" = 4 ] || fail "compress -t of four"
expect 0 "${compress[@]}" --rm -o moved.bby random --json
[ ! -e random ] || fail "--rm left the file"
[ "$(json_value out output)" = moved.bby ] || fail "compress --json"
# on disk before the input goes: the file, its name, then --rm
if strace -o calls true 2>/dev/null; then
    cp data removed
    expect 0 strace -f -o calls -e trace=fsync,rename,unlink "${compress[@]}" -q --rm removed
    [ "$(sed -nE 's/^[0-9]+ +([a-z]+)\(.*/\1/p' calls | paste -sd ' ')" = "fsync rename fsync unlink" ] || fail "--rm before the output is on disk: $(cat calls)"
else
    echo "skipped: flushes (no strace)"
fi
expect 1 "${compress[@]}" nowhere one
complains "nowhere: cannot open it"
[ -e one.bby ] || fail "the file after one that failed"

# ---- a part of a file
for ((i = 0; i < 2500; i++)); do printf 'The %dth line says that %d and %d are not the same.\n' "$i" $((i * 9)) $((i * 9 + 1)); done >long
expect 0 "${compress[@]}" -1 -k --block 64 long
[ "$(wc -c <long)" -gt 140000 ] || fail "long is short"
for range in 0:1 65530:20 60000:80000 139999: 0: 5:0; do
    offset=${range%:*} length=${range#*:}
    "${decompress[@]}" -q --range "$range" long.bby >part 2>err || fail "--range $range: $(cat err)"
    tail -c +$((offset + 1)) long | head -c "${length:-1000000}" | cmp - part || fail "--range $range gives other bytes"
done
expect 0 "${decompress[@]}" --range 100000:50 -f -o part --json long.bby
[ "$(json_value out offset) $(json_value out bytes)" = "100000 50" ] || fail "--range --json"
"${decompress[@]}" -q --range 70000:9 <long.bby >part 2>err || fail "--range of standard input"
tail -c +70001 long | head -c 9 | cmp - part || fail "--range of standard input gives other bytes"
# the blocks before and after are not read
head -c -100 long.bby >bad.bby
printf '\x55\x55\x55\x55' | dd of=long.bby bs=1 seek=100 conv=notrunc 2>/dev/null
"${decompress[@]}" -q --range 139000:1000 long.bby >part 2>err || fail "--range reads the first block, too"
expect 1 "${decompress[@]}" -q --range 0:1 long.bby
complains "long.bby: byte "
expect 1 "${decompress[@]}" --range 0:1 bad.bby
complains "no end record"
cat data.bby | "${decompress[@]}" --range 0:1 >out 2>err && fail "--range of a pipe"
complains "not from a pipe"
expect 2 "${decompress[@]}" --range 100000000:1 data.bby
complains "beyond the"
expect 2 "${decompress[@]}" --range 5 data.bby
complains "OFFSET:LENGTH"
expect 2 "${compress[@]}" --range 5:5 data
complains "add -d"

# ---- blocks side by side, and a pipe that waits: what is whole comes at once
expect 0 "${compress[@]}" -9 -f -k --block 64 long
for blocks in 1 2 0; do
    "${decompress[@]}" -q -c --blocks $blocks long.bby | cmp - long || fail "decompress --blocks $blocks"
done
mkfifo wait
{
    head -c $(($(wc -c <long.bby) - 10)) long.bby
    wait_until "what is whole comes" test -s early
    tail -c 10 long.bby
} >wait &
"${decompress[@]}" -q <wait >early 2>err || fail "decompress of a pipe that waits: $(cat err)"
cmp early long || fail "decompress of a pipe that waits"
wait

# ---- what is damaged or does not belong is refused, and leaves nothing
size=$(wc -c <data.bby)
cp data.bby bad.bby
printf '\x55' | dd of=bad.bby bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
expect 1 "${decompress[@]}" bad.bby
complains "bad.bby: byte "
[ -z "$(find . -name bad -o -name '*.partial')" ] || fail "something was left of bad.bby"
head -c $((size - 3)) data.bby >bad.bby
expect 1 "${decompress[@]}" -t bad.bby
complains "truncated"
expect 1 "$bitbyte" info bad.bby
complains "truncated"
{ cat data.bby; echo; } >bad.bby
expect 1 "${decompress[@]}" -t bad.bby
complains "more bytes follow"
expect 1 "${decompress[@]}" -c data
complains "not a stream of bitbyte compress"
expect 0 "$bitbyte" train --data text.txt --out other "${tiny[@]}" --steps 2
expect 1 "${decompress[@]}" -c --model other data.bby
complains "made with another model"
[ ! -s out ] || fail "bytes of another model"
"$bitbyte" compress --device ref -q -c one >ref.bby 2>err || fail "compress --device ref"
if [ "$device" = cpu ]; then expect 1 "${decompress[@]}" -t ref.bby; fi
if [ "$device" = cpu ]; then complains "made on device ref"; fi
expect 0 "$bitbyte" train --data text.txt --out unquantized "${tiny[@]}" --steps 2 --no_act_quant
expect 1 "${compress[@]}" -c --model unquantized data
complains "no_act_quant"
expect 2 env -u BITBYTE_MODEL "${compress[@]}" data
complains "BITBYTE_MODEL is not set"
expect 1 "${decompress[@]}" original
complains "does not end in .bby"
expect 2 "${compress[@]}" -c -o x data
expect 2 "${compress[@]}" -c data original
complains "several inputs"
for range in 1:2:3 :2 1 1:2x -1:2; do
    expect 2 "${decompress[@]}" --range "$range" data.bby
    complains "--range needs OFFSET:LENGTH"
done
expect 2 "${compress[@]}" -x data
complains "unknown option '-x'"
expect 2 "${compress[@]}" -T
complains "needs a value"
expect 1 "${compress[@]}" .
complains "is a folder"
if command -v script >/dev/null; then
    script -qec "${compress[*]} -c data" typescript >/dev/null </dev/null && fail "compressed bytes went to a terminal"
    grep -q "to a terminal" typescript || fail "compress -c on a terminal does not say why"
fi
echo "passed"
