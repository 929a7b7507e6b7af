#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Models with n-gram embeddings on the command line: training, resuming, ranks, files, and their uses.
set -uo pipefail
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
shape=(--n_layer 1 --d_model 32 --n_head 2 --d_ff 48 --arch plus --ngram_max 3 --ngram_bits 8)
small=("${shape[@]}" --seq_len 32 --batch_size 2 --grad_accum 1 --threads 1 --device "$device")
llama=(--n_layer 1 --d_model 32 --n_head 2 --d_ff 48 --seq_len 32 --batch_size 2 --steps 2 --threads 1 --device "$device")
train() { expect 0 "$bitbyte" train "${@}"; }

train --data text.txt --out whole "${small[@]}" --steps 8 --lr_ngram 0.2
says "n-grams to 3 of 2^8"
train --data text.txt --out run "${small[@]}" --steps 8 --lr_ngram 0.2 --stop_at 3
train --resume run
model=whole/step-00000008.safetensors
cmp $model run/step-00000008.safetensors || fail "a resumed run gives another model"
expect 2 "$bitbyte" train --resume run --steps 9 --ngram_max 4
complains "--ngram_max 4"
train --data text.txt --out llama "${llama[@]}" --ngram_bits 9 --lr_ngram 0.2
for option in ngram_bits lr_ngram; do complains "--$option has no effect: it requires --arch plus"; done

# A report counts the same parameters as the model has.
expect 0 "$bitbyte" info whole --json
parameters=$(json_value out parameters)
expect 0 "$bitbyte" report whole --out whole.html
awk -v n="$parameters" 'BEGIN { printf "parameters</th><td>%.1f K<", n / 1000 }' >wanted
grep -qFf wanted whole.html || fail "report: not $(cat wanted)"

# Muon's momentum depends on the architecture.
bpb_of() {
    expect 0 "$bitbyte" eval "$1" --data text.txt --seq_len 32 --json --device "$device"
    bpb=$(json_value out bpb)
}
train --data text.txt --out plus95 "${small[@]}" --steps 8 --lr_ngram 0.2 --muon_momentum 0.95
bpb_of plus95 && other=$bpb
bpb_of whole && [ "$bpb" = "$other" ] || fail "--arch plus: the default momentum is not 0.95"
for momentum in 0.9 0.95; do
    train --data text.txt --out llama$momentum "${llama[@]}" --muon_momentum $momentum
done
bpb_of llama && other=$bpb
bpb_of llama0.9 && [ "$bpb" = "$other" ] || fail "--arch llama: the default momentum is not 0.9"
bpb_of llama0.95 && [ "$bpb" != "$other" ] || fail "--muon_momentum has no effect"
other=$bpb

# Runs whose config.json does not have it were begun with 0.95.
train --data text.txt --out older "${llama[@]}" --muon_momentum 0.95 --stop_at 1
grep -q muon_momentum older/config.json || fail "config.json does not have muon_momentum"
grep -v muon_momentum older/config.json >config.json && mv config.json older/config.json
train --resume older
bpb_of older && [ "$bpb" = "$other" ] || fail "a run without muon_momentum in its config.json does not go on with 0.95"

expect 2 "$bitbyte" train --data text.txt --out x --init $model --arch llama
complains "--arch llama contradicts"
expect 2 "$bitbyte" train --data text.txt --out x "${shape[@]}" --ngram_max 8
complains "ngram_max"

# What is read again and again is learned by heart.
head -c 150 text.txt >short.txt
train --data short.txt --out often "${small[@]}" --steps 8
says "note: the run reads the data 4."

# A packed file gives what the checkpoint gives.
expect 0 "$bitbyte" export $model --out packed.safetensors --device "$device"
for file in $model packed.safetensors; do
    expect 0 "$bitbyte" generate $file --prompt "the " --max_new_bytes 40 --seed 3 --n 3 --device "$device"
    cp out "generated.${file##*/}"
    expect 0 "$bitbyte" eval $file --data text.txt --seq_len 64 --json --device "$device"
    json_value out bpb >"bpb.${file##*/}"
done
cmp generated.step-00000008.safetensors generated.packed.safetensors || fail "the packed file writes something else"
cmp bpb.step-00000008.safetensors bpb.packed.safetensors || fail "the packed file scores otherwise"
expect 0 "$bitbyte" info packed.safetensors --verify
expect 0 "$bitbyte" info packed.safetensors
says "ngram_max"
for format in gguf hf safetensors; do
    expect 1 "$bitbyte" export $model --out other --format $format
    complains "n-gram embeddings (--arch plus)"
    [ ! -e other ] || fail "a refused export left something"
done

# Streams know the model from the checkpoint and from the packed file.
if [ "$device" = cpu ] || [ "$device" = ref ]; then
    expect 0 "$bitbyte" compress --model $model --device "$device" -k -o text.bby text.txt
    expect 0 "$bitbyte" decompress --model packed.safetensors --device "$device" -o text.again text.bby
    cmp text.txt text.again || fail "decompressed to another text"
fi
