#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# What a resumed run checks, keeps and allows to change: its data, its options, its length; and options without effect.
set -uo pipefail
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
shape=(--n_layer 1 --d_model 32 --n_head 2 --d_ff 48)
small=("${shape[@]}" --seq_len 32 --batch_size 2 --grad_accum 1 --threads 1 --device "$device" --save_every 10)
train() { expect 0 "$bitbyte" train "${@}"; }
silent() { if grep -qF -- "$1" out err; then fail "says: $1"; fi; }

# ---- data: noticed where it changed, taken where it only moved
mkdir data
head -c 6000 text.txt >data/shard_00000.bin
tail -c 5000 text.txt >data/shard_00001.bin
train --data data --out whole "${small[@]}" --steps 12 --seed 4
train --data data --out run "${small[@]}" --steps 12 --seed 4 --stop_at 6
for name in edited grown fewer moved; do cp -r run $name; done
cp -r data elsewhere
train --resume moved --data elsewhere
says "note: from step 7 on: --data $tmp/elsewhere (was $tmp/data)"
silent "warning"
cmp whole/step-00000012.safetensors moved/step-00000012.safetensors || fail "the same data elsewhere gives another run"
mkdir other
cp data/shard_00000.bin other
expect 2 "$bitbyte" train --resume fewer --data other
complains "shard_00001.bin is missing"
complains "--resume FILE"
[ ! -e fewer/step-00000012.safetensors ] || fail "a refused resume trained"
grep -qF "\"$tmp/data\"" fewer/config.json || fail "a refused resume changed config.json"
printf x | dd of=data/shard_00001.bin bs=1 seek=2500 conv=notrunc status=none
train --resume edited
says "warning: the data has changed since this run was saved"
says "the content of shard_00001.bin changed"
train --resume edited --steps 13 # it is known now
silent "warning"
printf 'more' >>data/shard_00001.bin
cp data/shard_00000.bin data/shard_00002.bin
train --resume grown --json
grep -F '"notice"' out | grep -F "shard_00001.bin has 5004 bytes, had 5000, shard_00002.bin is new (6000 bytes)" >/dev/null ||
    fail "what changed in the data is not said"
# A hash in the manifest tells what blocks cannot: here it is the only thing that differs.
expect 0 "$bitbyte" pack text.txt --out_dir packed
train --data packed --out manifest "${small[@]}" --steps 4 --stop_at 2
perl -pi -e 's/("xxh3":\s*")(.)/$1 . ($2 eq "0" ? 1 : 0)/e' packed/manifest.json
train --resume manifest
says "the content of shard_00000.bin changed"
# So does that of each directory, whose shards have the names of another's.
expect 0 "$bitbyte" pack text.txt --out_dir two_packs/a
expect 0 "$bitbyte" pack data/shard_00000.bin --out_dir two_packs/b
train --data 'two_packs/[ab]/shard_*.bin' --out of_two_packs "${small[@]}" --steps 4 --stop_at 2
perl -pi -e 's/("xxh3":\s*")(.)/$1 . ($2 eq "0" ? 1 : 0)/e' two_packs/b/manifest.json
train --resume of_two_packs
says "since this run was saved: the content of shard_00000.bin changed. From here on"

# ---- length and options of the steps to come
train --data text.txt --out longer "${small[@]}" --steps 10 --recipe original --lr 1e-3 --warmup_frac 0.2
train --resume longer --steps 20 --lr 2e-3 --val_data text.txt --val_batches 1 --save_every 5 --log_every 1
says "from step 11 on:"
for change in "--lr 0.002 (was 0.001)" "--steps 20 (was 10)" "--val_data $tmp/text.txt (was none)" "--save_every 5 (was 10)"; do says "$change"; done
says "the schedule now has 20 steps instead of 10: step 11 has a learning rate of 0.00126 and sequences of 32 bytes; warmup is the first 2 steps"
says "step 20/20"
[ -e longer/step-00000015.safetensors ] || fail "--save_every 5 while resuming"
[ "$(json_value longer/config.json steps)" = 20 ] || fail "config.json: the new --steps"
perl -MJSON::PP -ne '$l = decode_json($_); print $l->{lr} if $l->{step} == 11 && exists $l->{lr}' longer/metrics.jsonl | grep -q '^0.001256' ||
    fail "the rate of step 11 is not the one that was said"
train --resume longer # nothing changed: nothing said
silent "from step"
expect 2 "$bitbyte" train --resume longer --steps 15
complains "--steps 15: the run is already at step 20"
for option in "--d_model 64:has 32" "--n_layer 2:has 1" "--seed 9:has 0" "--no_act_quant:has off" "--optim adamw:has adamw8bit"; do
    # shellcheck disable=SC2086
    expect 2 "$bitbyte" train --resume longer --steps 30 ${option%:*}
    complains "${option%:*}"
    complains "${option#*:}"
done
# An extended run is resumed like any other.
cp -r longer parts
train --resume longer --steps 30
train --resume parts --steps 30 --stop_at 25
train --resume parts
cmp longer/step-00000030.safetensors parts/step-00000030.safetensors || fail "an extended run that was stopped ends with other bits"
train --resume parts --steps 32 --grad_accum 2
says "a step   2 x 2 sequences"

# ---- a checkpoint file brings its configuration
train --resume longer/step-00000015.safetensors --out from_file
says "steps 16 to 20"
says "lr 0.002"
silent "note:"
[ "$(json_value from_file/config.json data)" = "$tmp/text.txt" ] || fail "--resume FILE: the data of its run"
cmp longer/step-00000020.safetensors from_file/step-00000020.safetensors || fail "--resume FILE ends with other bits"
cp longer/step-00000015.safetensors alone.safetensors
mkdir away
mv alone.safetensors away
train --resume away/alone.safetensors --data text.txt --out from_alone --lr 5e-4
says "--lr 0.0005 (was 0.002)"
says "1 layer, d_model 32"
for key in steps:20 seq_len:32 batch_size:2 warmup_steps:2 optim:adamw8bit; do
    [ "$(json_value from_alone/config.json ${key%:*})" = ${key#*:} ] || fail "--resume FILE: ${key%:*} is not the file's"
done

# ---- what has no effect is said, once; so is a model that is read past its trained length
train --data text.txt --out warm "${small[@]}" --steps 3 --lr 1e-3 --warmup_steps 5 --log_every 1 --keep_every 2 --val_every 1 \
    --seq_len_cap 16 --reduce exact --zero 1 --strict_val
says "the warm-up takes all 3 steps"
for option in keep_every val_every seq_len_cap reduce zero strict_val; do complains "note: --$option has no effect"; done
[ "$(grep -c "no effect" err)" = 6 ] || fail "options with an effect are said to have none"
perl -MJSON::PP -ne '$l = decode_json($_); printf "%.6f ", $l->{lr}' warm/metrics.jsonl >rates
[ "$(cat rates)" = "0.000333 0.000667 0.001000 " ] || fail "a warm-up past the end does not reach the rate: $(cat rates)"
expect 0 "$bitbyte" eval warm text.txt --device "$device"
[ ! -s err ] || fail "a note where there is none to say"
expect 0 "$bitbyte" eval warm text.txt --device "$device" --seq_len 64
[ "$(grep -c "windows of 64 bytes exceed the trained length of 32" err)" = 1 ] || fail "eval past the trained length"
expect 0 "$bitbyte" eval warm text.txt --device "$device" --batches 1 --batch_size 1 --kv_cache int8
silent "no effect"
head -c 100 text.txt >piece
expect 0 "$bitbyte" eval warm piece --device ref --threads 2 --batch_size 2 --kv_cache int8
complains "--threads has no effect: --device ref has one thread"
complains "--batch_size has no effect"
expect 0 "$bitbyte" generate warm --max_new_bytes 2 --context_length 64 --temperature 0 --top_k 3 --device "$device"
[ "$(grep -c "a context of 64 bytes exceeds the trained length of 32" err)" = 1 ] || fail "generate past the trained length"
complains "--top_k has no effect"

# unused N OPTION... -- COMMAND...: the options, and N in all, are said to have no effect in a command that succeeds.
unused() {
    local count=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1") && shift; done
    shift
    expect 0 "$bitbyte" "$@"
    for option in "${options[@]}"; do complains "note: --$option has no effect"; done
    [ "$(grep -c "no effect" err)" = "$count" ] || fail "$*: $count options have no effect, found: $(grep "no effect" err)"
}
for format in bitbyte safetensors; do
    unused 2 device threads -- export warm --out "warm.$format" --format $format --device "$device" --threads 1
done
unused 0 -- export warm --out warm.packed --device cpu --threads 1 --allow_overwrite
unused 1 threads -- export warm --out warm.packed --device ref --threads 1
unused 1 allow_overwrite -- export warm --out warm.hf --format hf --device cpu --threads 1 --allow_overwrite
unused 2 ste rope_base -- info --memory --ste clipped --rope_base 100 --device cpu --threads 1 --n_layer 1 --optim adamw --no_act_quant
unused 1 threads -- info --memory --device ref --threads 2
unused 1 ngram_bits -- info --memory --device cpu --ngram_bits 5
unused 1 ste -- info --memory --device cpu --dense --ste identity
mkdir texts
cp text.txt texts
unused 1 json_key -- pack texts --out_dir packs/0 --input_format text --json_key body --exts txt --strict --overwrite
unused 1 exts -- pack texts/text.txt --out_dir packs/1 --exts md
unused 0 -- pack texts text.txt --out_dir packs/2 --exts txt --json_key body
exit 0
