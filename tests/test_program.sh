#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One model through the whole program: train, stop, resume, eval, generate, info; and which arguments each refuses.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

# ---- train: what it says and leaves
expect 0 "$bitbyte" train --data text.txt --out run "${tiny[@]}" --steps 30 --log_every 10 --save_every 10 --val_data text.txt \
    --val_every 15 --val_batches 2 --val_seq_len 16 --lr 3e-3
for word in "parameters" "memory" "1 shard" "epoch" "step 30/30" "validation bpb" "saved run/step-00000030.safetensors" \
    "bitbyte generate run"; do says "$word"; done
[ "$(cat run/latest)" = step-00000030.safetensors ] || fail "latest"
[ "$(find run -name 'step-*' | wc -l)" = 3 ] || fail "checkpoints of a run of 30 steps that saves every 10"
[ "$(json_value run/config.json lr)" = 0.003 ] || fail "config.json: lr"
[ "$(json_value run/config.json data)" = "$tmp/text.txt" ] || fail "config.json: data is not absolute"
[ "$(wc -l <run/metrics.jsonl)" = 5 ] || fail "metrics.jsonl: 3 logged steps and 2 validations"

# ---- the run directory is guarded
# --profile changes nothing but that it says where the time went.
expect 0 "$bitbyte" train --data text.txt --out profiled "${tiny[@]}" --steps 5 --profile
says "profile:"
says "linear_backward down"
says "percent_of_time"
expect 0 "$bitbyte" train --data text.txt --out unprofiled "${tiny[@]}" --steps 5
cmp profiled/step-00000005.safetensors unprofiled/step-00000005.safetensors || fail "train --profile: another checkpoint"
expect 0 "$bitbyte" train --data text.txt --out profiled "${tiny[@]}" --steps 5 --profile --json --allow_overwrite
grep '"event":"profile"' out | grep -q '"percent_of_peak"' || fail "train --profile --json: no event of the profile"
expect 2 "$bitbyte" train --data text.txt --out run "${tiny[@]}" --steps 5
complains "--allow_overwrite"
complains "--resume"
cp -r run old
expect 0 "$bitbyte" train --data text.txt --out old "${tiny[@]}" --steps 5 --allow_overwrite --keep 1
[ "$(ls old/step-*)" = old/step-00000005.safetensors ] || fail "--allow_overwrite leaves old checkpoints"
: >plain
expect 1 "$bitbyte" train --data text.txt --out plain/run "${tiny[@]}" --steps 5
complains "plain"
if unshare -m true 2>/dev/null; then
    mkdir read_only
    expect 1 unshare -m sh -c 'mount -t tmpfs -o ro none read_only && exec "$@"' sh \
        "$bitbyte" train --data text.txt --out read_only "${tiny[@]}" --steps 5
    complains "read_only"
else
    echo "skipped: a read-only file system (no right to mount)"
fi

# ---- 30 steps = 12, stop, resume 18, bit for bit; a resumed directory brings its configuration
expect 0 "$bitbyte" train --data text.txt --out halves "${tiny[@]}" --steps 30 --stop_at 12 --log_every 10 --save_every 10 \
    --val_data text.txt --val_every 15 --val_batches 2 --val_seq_len 16 --lr 3e-3
says "stopped after step 12 of 30"
says "bitbyte train --resume halves"
expect 2 "$bitbyte" train --resume halves --d_ff 64
complains "--d_ff 64 contradicts"
complains "has 48"
expect 1 "$bitbyte" train --resume halves --data other.txt
complains "$tmp/other.txt"
expect 2 "$bitbyte" train --resume halves --stop_at 3
complains "already at step 12"
mkdir elsewhere
(cd elsewhere && expect 0 "$bitbyte" train --resume ../halves --lr 0.003 --save_every 9 --json) || exit 1
json_lines out | sort | uniq -c | tr -s ' \n' ' ' >events
[ "$(cat events)" = " 1 done 1 notice 3 saved 1 start 18 step 2 validation " ] || fail "events: $(cat events)"
cmp run/step-00000030.safetensors halves/step-00000030.safetensors || fail "a resumed run differs from one without a break"
[ "$(json_value halves/config.json save_every)" = 9 ] || fail "a free option given while resuming is kept"
expect 0 "$bitbyte" train --resume halves
says "30 steps are done"

# ---- resume from a file, start from a file
expect 0 "$bitbyte" train --resume run/step-00000010.safetensors --data text.txt --out from_file --steps 12 --seq_len 16 \
    --device "$device" --optim adamw --no_opt_state
says "step 12/12"
says "2 layers, d_model 32"
expect 2 "$bitbyte" train --resume run/step-00000010.safetensors --data text.txt --out from_other --steps 12 --seq_len 16 \
    --device "$device" --optim adamw
complains "is 'muon', this run's is 'adamw'"
expect 2 "$bitbyte" train --resume run/step-00000010.safetensors --data text.txt --d_ff 64
complains "--d_ff 64 contradicts run/step-00000010.safetensors, which has 48"
expect 2 "$bitbyte" train --init run/step-00000010.safetensors --data text.txt --n_layer 3
complains "which has 2"
expect 0 "$bitbyte" train --init run/step-00000030.safetensors --data text.txt --out tuned --steps 2 --seq_len 16 --device "$device"
says "step 2/2"
mkdir empty
expect 1 "$bitbyte" train --resume empty
complains "empty/config.json"
mkdir begun
cp run/config.json begun/
expect 0 "$bitbyte" train --resume begun --stop_at 1
says "no checkpoint yet"
echo '{"version": 1, "lr": "high"}' >begun/config.json
expect 1 "$bitbyte" train --resume begun
complains '"lr"'
echo '{"version": 1, ' >begun/config.json
expect 1 "$bitbyte" train --resume begun
complains "begun/config.json"

# ---- eval
expect 0 "$bitbyte" eval run text.txt --device "$device"
says "bits per byte"
expect 0 "$bitbyte" eval run --data text.txt --json --device "$device"
bpb=$(json_value out bpb)
[ "$(json_value out bytes)" = $(($(wc -c <text.txt) - 1)) ] || fail "eval: every byte but the first is scored"
awk -v bpb="$bpb" -v loss="$(json_value out loss)" 'BEGIN { d = bpb - loss / log(2); exit !(bpb > 0 && d < 1e-9 && d > -1e-9) }' ||
    fail "eval: bpb is not loss / ln 2"
[ "$(json_value out seconds)" != "" ] || fail "eval: seconds"
expect 0 "$bitbyte" eval run --data text.txt --json --device "$device" --batch_size 3
[ "$(json_value out bpb | cut -c1-8)" = "$(cut -c1-8 <<<"$bpb")" ] || fail "eval: the result depends on the batch size"
"$bitbyte" eval run --data - --json --device "$device" <text.txt >out 2>err || fail "eval from standard input"
[ "$(json_value out bpb)" = "$bpb" ] || fail "eval: standard input differs from the file"
# A window that slides by half: what the second one scores is the whole of it less its first half.
size=64 nats=()
head -c $((size + size / 2 + 1)) text.txt >slid
head -c $((size + 1)) slid >piece_0
tail -c $((size + 1)) slid >piece_1
head -c $((size / 2 + 1)) piece_1 >piece_2
for piece in piece_0 piece_1 piece_2; do
    expect 0 "$bitbyte" eval run $piece --seq_len $size --json --device "$device"
    nats+=("$(json_value out loss)")
done
expect 0 "$bitbyte" eval run slid --seq_len $size --sliding --json --device "$device"
[ "$(json_value out bytes)" = $((size + size / 2)) ] || fail "eval --sliding: every byte but the first is scored once"
awk -v all="$(json_value out loss)" -v a="${nats[0]}" -v b="${nats[1]}" -v c="${nats[2]}" \
    'BEGIN { d = 1.5 * all - (a + b - c / 2); exit !(d < 1e-5 && d > -1e-5) }' || fail "eval --sliding: not the windows' later halves"
# Through a cache: f32 changes the order of sums alone (and codes of activations by it), on some processors not even that; the
# others round, six bits more than eight.
full=$(json_value out loss)
for cache in "f32 0.002" "int8 0.01" "int6 0.04"; do
    expect 0 "$bitbyte" eval run slid --seq_len $size --sliding --kv_cache ${cache% *} --json --device "$device"
    [ "$(json_value out kv_cache)" = ${cache% *} ] || fail "eval --kv_cache ${cache% *}: says $(json_value out kv_cache)"
    awk -v all="$full" -v cached="$(json_value out loss)" -v most=${cache#* } \
        -v exact=${cache% *} 'BEGIN { d = cached - all; exit !((cached != all || exact == "f32") && d < most && d > -most) }' ||
        fail "eval --kv_cache ${cache% *}: $(json_value out loss) instead of $full"
done
expect 2 "$bitbyte" eval run slid --kv_cache int4 --device "$device"
expect 2 "$bitbyte" eval run slid --seq_len 1 --sliding --device "$device"
complains "slides"
printf 'ab' >two
expect 0 "$bitbyte" eval run two --json --device "$device"
[ "$(json_value out bytes)" = 1 ] || fail "eval: a file shorter than a window"
: >nothing
expect 1 "$bitbyte" eval run nothing --device "$device"
complains "nothing"

# ---- generate
expect 0 "$bitbyte" generate run --prompt "The " --max_new_bytes 20 --seed 3 --device "$device"
[ "$(wc -c <out)" = 20 ] || fail "generate: 20 new bytes and nothing else"
cp out first
expect 0 "$bitbyte" generate run "The " --max_new_bytes 20 --seed 3 --echo --device "$device"
[ "$(cat out)" = "The $(cat first)" ] || fail "generate --echo, or the same seed gave another text"
printf 'The ' >prompt
expect 0 "$bitbyte" generate run --prompt_file prompt --max_new_bytes 20 --seed 3 --metrics --metrics_json metrics.json --device "$device"
cmp out first || fail "generate --prompt_file differs from --prompt"
complains "bytes/s"
[ "$(json_value metrics.json new_bytes)" = 20 ] || fail "generate --metrics_json"
"$bitbyte" generate run --prompt_file - --max_new_bytes 20 --seed 3 --device "$device" <prompt >out || fail "generate --prompt_file -"
cmp out first || fail "generate: a prompt from standard input differs"
expect 0 "$bitbyte" generate run --prompt "The " --max_new_bytes 80 --temperature 0 --device "$device"
complains "exceed the context of 32"
[ "$(wc -c <out)" = 80 ] || fail "generate past the trained length"
expect 0 "$bitbyte" generate run --max_new_bytes 5 --device "$device"
[ "$(wc -c <out)" = 5 ] || fail "generate without a prompt"
expect 1 "$bitbyte" generate run --prompt_file missing --device "$device"
complains "missing"

# ---- info
expect 0 "$bitbyte" info run
says "n_layer"
says "blocks.1.mlp.down.weight"
expect 0 "$bitbyte" info run/step-00000010.safetensors --json
json_value out training_state | grep -q '"step":10' || fail "info --json: the step"
expect 0 "$bitbyte" info --memory run --json --device "$device"
json_value out training | grep -q '"activations":' || fail "info --memory --json"
expect 2 "$bitbyte" info --memory run --n_layer 3 --device "$device"
complains "which has 2"

# ---- on a terminal: a live line, whole characters, nothing that steers it
if command -v script >/dev/null; then
    export TERM=xterm
    script -qec "stty cols 120; LC_ALL=C $bitbyte train --data text.txt --out live ${tiny[*]} --steps 40 --log_every 30" typescript </dev/null >/dev/null
    tr '\r' '\n' <typescript | grep -qE 'step [0-9]+/40  ---|step [0-9]+/40  =+' || fail "no live line on a terminal"
    script -qec "stty cols 150; LC_ALL=C.UTF-8 $bitbyte train --data text.txt --out spark ${tiny[*]} --steps 400 --log_every 0" typescript </dev/null >/dev/null
    tr '\r' '\n' <typescript | grep -qE 'step [0-9]+/400  ━*─*  +[0-9]+%  .*/s  .* left  loss [0-9.]+ [▁▂▃▄▅▆▇█]+ bpb' || fail "no bar and sparkline"
    script -qec "stty cols 120; LC_ALL=C $bitbyte train --data text.txt --out live2 ${tiny[*]} --steps 40 --log_every 30" typescript </dev/null >/dev/null
    grep -q 'step 30/40' typescript || fail "no plain line on a terminal"
    script -qec "$bitbyte generate run --prompt 'Caf$(printf '\303\251') ' --temperature 3 --max_new_bytes 800 --seed 1 --device $device" \
        typescript </dev/null >/dev/null
    grep -a -q "$(printf '\033\\[2mCaf\303\251 \033\\[0m')" typescript || fail "the prompt is not shown dimmed"
    sed 's/\x1b\[[02]m//g' typescript | tr -d '\r' | iconv -f UTF-8 -t UTF-8 >/dev/null || fail "a terminal was sent broken UTF-8"
    sed 's/\x1b\[[02]m//g' typescript | tr -d '\r\n\t' | LC_ALL=C grep -a -q '[[:cntrl:]]' && fail "a terminal was sent control characters"
fi
echo "passed"
