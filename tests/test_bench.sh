#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# bitbyte bench on a step small enough to test with, and our half of bench/compare_torch.py, which reads it.
set -u
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/program_helpers.sh
. "$source_dir/tests/program_helpers.sh"

small=(--shape S --batch_size 1 --seq_len 16 --repeats 1 --threads 1 --device "$device")
# The one object of the array, for json_value.
one() { perl -pe 's/^\[//; s/\]$//' <out >one.json; }
# How often a step calls an operation.
calls() { json_value one.json operations | perl -MJSON::PP -e 'local $/; $_->{name} eq $ARGV[0] and print $_->{calls} for @{decode_json(<STDIN>)}' "$1"; }
expect 0 "$bitbyte" bench "${small[@]}" --json
one
json_value one.json step | grep -q '"percent_of_limit"' || fail "bench: the step"
json_value one.json operations | grep -q '"muon_step"' || fail "bench: the operations, with the optimizer by its name"
# The pass that is timed is the real one: 6 blocks of two norms and the head's, and every linear layer by its name.
[ "$(calls rmsnorm_forward)" = 13 ] || fail "bench: 13 norms in a step"
for layer in qkv o gate_up down; do
    for way in forward backward; do
        json_value one.json operations | grep -q "\"linear_$way $layer\"" || fail "bench: linear_$way $layer"
    done
done
json_value one.json operations | perl -ne '$sum += $1 while /"percent_of_step": *([0-9.e-]+)/g; END { exit($sum > 1 && $sum < 100.1 ? 0 : 1) }' ||
    fail "bench: shares of a step are more than the step"
# What the processor has is what the kernel says it has, of the names that are asked for.
processor=$(json_value one.json processor)
case $processor in
    "sse2 "*)
        flags=" $(sed -n '/^flags/{s/.*: //p;q}' /proc/cpuinfo) "
        for name in sse2 sse4_1 avx avx2 fma f16c avx_vnni avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 amx_bf16 amx_int8; do
            case $flags in *" $name "*) kernel=there ;; *) kernel=missing ;; esac
            case " $processor " in *" $name "*) ours=there ;; *) ours=missing ;; esac
            [ $kernel = $ours ] || fail "bench: $name is $ours in \"$processor\", $kernel in /proc/cpuinfo"
        done ;;
    neon*) ;;
    *) fail "bench: processor is \"$processor\"" ;;
esac
expect 0 "$bitbyte" bench "${small[@]}" --json --step_only --optim adamw
one
json_value one.json step | grep -q '"bytes_per_s"' || fail "bench --step_only: the step"
grep -q '"operations"' one.json && fail "bench --step_only times the operations"
expect 0 "$bitbyte" bench "${small[@]}" --json --recompute
one
json_value one.json step | grep -q '"percent_of_limit"' || fail "bench --recompute: the step"
[ "$(calls 'linear_forward gate_up')" = 11 ] ||
    fail "bench --recompute: 6 + 5 calls of a block's forward pass"
expect 0 "$bitbyte" bench "${small[@]}" --json --optim adamw
one
json_value one.json operations | grep -q '"adamw_step"' || fail "bench --optim adamw: the optimizer by its name"

# Inference has one shape and fixed positions: too much for the slow backend.
if [ "$device" = cpu ]; then
    for cache in int6 int8 f32; do
        expect 0 "$bitbyte" bench --decode --shape S --repeats 1 --threads 1 --kv_cache $cache --json
        one
        [ "$(json_value one.json kv_cache)" = $cache ] || fail "bench --decode: not the $cache cache"
        [ "$(json_value one.json decode | grep -o '"bytes_per_s":[1-9]' | wc -l)" = 3 ] || fail "bench --decode: three positions"
        json_value one.json prefill | grep -q '"bytes_per_s":[1-9]' || fail "bench --decode: reading a prompt"
        json_value one.json batch | grep -q '"times_one":[0-9.]*[1-9]' || fail "bench --decode: many sequences"
        json_value one.json memory | grep -q '"resident_over_both":[1-9]' || fail "bench --decode: memory"
    done
    expect 0 "$bitbyte" bench --decode --shape S --repeats 1 --threads 1
    says 4096
fi
expect 2 "$bitbyte" bench --decode --kv_cache int4
complains "int4"

command -v python3 >/dev/null || { echo "skipped: bench/compare_torch.py (no python3)"; exit 0; }
compare=(python3 "$source_dir/bench/compare_torch.py" --bitbyte "$bitbyte")
expect 0 "${compare[@]}" --ours_only --quick --threads 1 --json turns.json
says "Shape S, 1 x 64 bytes a step, threads: 1"
says "of the limit"
grep -Eq '^bitbyte +[1-9][0-9,]* +[0-9]+% +[1-9][0-9,]*$' out || fail "compare_torch: no row of bitbyte"
perl -MJSON::PP -e 'local $/; my $turn = decode_json(<STDIN>)->[0]{bitbyte}[0]; exit !($turn->{bytes_per_s} > 0 && $turn->{peak_mb} > 1)' \
    <turns.json || fail "compare_torch --json"
expect 2 "${compare[@]}" --variants sparse
complains "expected ternary-f32-eager"
expect 1 "${compare[@]}" --ours_only --quick --bitbyte missing
complains "missing: No such file"
echo "passed"
