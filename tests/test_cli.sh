#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The command line itself: help, options, invalid options, exit statuses. No training.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

expect 0 "$bitbyte" --version
grep -qE '^bitbyte [0-9]+\.[0-9]+\.[0-9]+$' out || fail "--version"
expect 2 "$bitbyte"
complains "Usage: bitbyte COMMAND"
expect 0 "$bitbyte" help
says "generate"
expect 2 "$bitbyte" trian
complains "did you mean 'train'"
expect 2 "$bitbyte" help evla
complains "did you mean 'eval'"
expect 2 "$bitbyte" xyzzy
complains "unknown command 'xyzzy'"

# Every option of the contract is real: help has it.
declare -A contract=(
    [train]="data out dtype loss_scale steps log_every save_every n_layer d_model n_head n_kv_head d_ff no_ckpt no_act_quant use_sdpa lr warmup_frac
        warmup_steps recipe lr_adam muon_momentum muon_iterations lr_ngram arch ngram_max ngram_bits dense cooldown_frac lr_schedule lr_min_factor wd grad_clip batch_size grad_accum seq_len seq_len_cap val_data val_every val_batches
        val_seq_len resume no_opt_state minutes steps_before size allow_overwrite ddp optim ste seed threads device keep wd_all rope_base init json stop_at
        keep_every save_sync save_copy spike_skip global_batch reduce dist_timeout save_minutes max_minutes profile
        sample_every sample_prompt tensorboard metrics_csv on_metrics"
    [serve]="model runs name n_head host port api_key_file api_key allowed_host cors_origin sequences queue cache_mb timeout max_new_bytes max_body_kb drain_seconds
        chat_template quiet threads device"
    [report]="runs out format plot x smooth log_x log_y"
    [eval]="model data n_head seq_len batches batch_size kv_cache json threads device"
    [generate]="model n_head prompt prompt_file max_new_bytes context_length kv_cache stop n repetition_penalty repetition_window temperature top_k top_p min_p
        seed interactive line_prefix line_suffix echo no_echo metrics metrics_json json speculate draft threads device"
    [pack]="inputs out_dir shard_size_gb sep_byte exts input_format val_frac json_key strict"
    [export]="model out format type name description license chat_template n_head allow_overwrite json threads device"
    [convert]="in out to type name description license chat_template n_head allow_overwrite json threads device"
    [info]="file json verify memory size n_layer d_model n_head n_kv_head d_ff batch_size seq_len optim no_ckpt"
    [bench]="shape decode kv_cache threads batch_size seq_len repeats optim recompute step_only json device"
)
for name in "${!contract[@]}"; do
    expect 0 "$bitbyte" help "$name"
    cp out help.txt
    for option in ${contract[$name]}; do
        grep -qE -- "^  (-., )?--$option( |\$)" help.txt || fail "'help $name' lacks --$option"
    done
    [ "$(awk 'length > 128' help.txt)" = "" ] || fail "'help $name' has lines over 128 columns"
    expect 0 "$bitbyte" "$name" --help
    cmp -s out help.txt || fail "'$name --help' differs from 'help $name'"
    expect 2 "$bitbyte" "$name" --no_such_thing_at_all
    complains "unknown option '--no_such_thing_at_all'"
done

# Defaults, as help says them.
"$bitbyte" help train >help.txt
for pair in "steps N:200000" "log_every N:50" "save_every N:2000" "n_layer N:24" "d_model N:1536" "n_head N:12" "n_kv_head N:n_head" \
    "d_ff N:4096" "lr X:0.04; with adamw, adamw8bit: 0.0002" "warmup_frac X:0.03" "lr_schedule cosine|constant|linear:cosine" \
    "lr_min_factor X:0; with --recipe original: 0.1" "lr_adam X:0.003" "muon_momentum X:0: 0.9; with --arch plus 0.95" "muon_iterations N:3" "lr_ngram X:0.4" "arch llama|plus:llama" "ngram_max N:4" "ngram_bits N:14" "cooldown_frac X:0.4" "recipe bitbyte|original:bitbyte" "wd X:0.1" \
    "grad_clip X:1" "batch_size N:1" "grad_accum N:8" "optim adamw|adamw8bit|muon:muon" \
    "ste identity|clipped:identity"; do
    awk -v option="  --${pair%%:*}" 'index($0, option) == 1 { on = 1; print; next } /^  --/ || /^$/ { on = 0 } on' help.txt |
        tr -s '\n ' '  ' | grep -qF "(default ${pair#*:})" || fail "help train: the default of ${pair%%:*}"
done

# Spelling: dashes, '=', misspelt names, values that are none.
expect 2 "$bitbyte" train --n-layers 3
complains "did you mean '--n_layer'"
expect 2 "$bitbyte" train --batchsize 3
complains "did you mean '--batch_size'"
expect 2 "$bitbyte" train -n_layer 3
complains "did you mean '--n_layer'"
expect 2 "$bitbyte" train --n-layer=x
complains "--n_layer: expected a whole number of at least 1, found 'x'"
expect 2 "$bitbyte" train --n_layer 0
complains "at least 1, found '0'"
expect 2 "$bitbyte" train --n_layer 1.5
complains "found '1.5'"
expect 2 "$bitbyte" train --n_layer 99999999999999999999
complains "found '99999999999999999999'"
expect 2 "$bitbyte" train --lr nan
complains "--lr: expected a number above 0, found 'nan'"
expect 2 "$bitbyte" train --lr 0
complains "above 0, found '0'"
expect 2 "$bitbyte" train --lr_min_factor 1.5
complains "expected a number from 0 to 1, found '1.5'"
expect 2 "$bitbyte" train --optim adam
complains "expected adamw, adamw8bit or muon, found 'adam'"
expect 2 "$bitbyte" train --device gpu
complains "expected cpu, cuda or ref, found 'gpu'"
expect 2 "$bitbyte" train --no_ckpt=1
complains "--no_ckpt takes no value"
expect 2 "$bitbyte" train --out
complains "--out needs a value: DIR"
expect 2 "$bitbyte" train --out --data
complains "--out needs a value, found the option '--data'"
expect 2 "$bitbyte" train text.txt
complains "unexpected argument 'text.txt'"
expect 2 "$bitbyte" train --out run
complains "--data DIR|GLOB|FILE is missing"
expect 2 "$bitbyte" train --data text.txt --global_batch 8 --grad_accum 2
complains "not both"
expect 2 env OMPI_COMM_WORLD_SIZE=4 "$bitbyte" train --data text.txt
complains "--ddp"
expect 2 "$bitbyte" train --data text.txt --no_opt_state
complains "--resume"
expect 2 "$bitbyte" train --data text.txt --resume a --init b
complains "not both"
expect 2 "$bitbyte" eval
complains "MODEL is missing"
expect 2 "$bitbyte" eval model
complains "DIR|GLOB|FILE is missing"
expect 2 "$bitbyte" eval model data more
complains "unexpected argument 'more'"
expect 2 "$bitbyte" generate model --top_p 0
complains "expected a number above 0, at most 1, found '0'"
expect 2 "$bitbyte" generate model --top_k 257
complains "from 0 to 256"
expect 2 "$bitbyte" generate model --prompt a --prompt_file b
complains "not both"
expect 2 "$bitbyte" info
complains "FILE is missing"
expect 2 "$bitbyte" info text.txt --n_layer 3
complains "--n_layer requires --memory"
expect 2 "$bitbyte" pack --sep_byte 256
complains "from -1 to 255, found '256'"
expect 2 "$bitbyte" bench --shape XL
complains "expected S, M, L or all, found 'XL'"

# An impossible model is a usage error; a missing file is a failure.
expect 2 "$bitbyte" train --data text.txt --out run --d_model 30 --n_head 4 --device "$device"
complains "30"
expect 2 "$bitbyte" train --data text.txt --out run --d_model 12 --n_head 4 --device "$device"
complains "12"
expect 2 "$bitbyte" train --data text.txt --out run --n_head 12 --n_kv_head 5 --device "$device"
complains "5"
expect 1 "$bitbyte" train --data missing.txt --out run "${tiny[@]}"
complains "missing.txt"
expect 1 "$bitbyte" eval missing.safetensors text.txt --device "$device"
complains "missing.safetensors"
expect 1 "$bitbyte" info text.txt
complains "text.txt"
[ ! -e run ] || fail "a run that could not start left its directory"

# Memory: predicted, refused, said.
expect 1 "$bitbyte" train --data text.txt --out run --d_model 8192 --n_head 64 --d_ff 32768 --n_layer 200 --seq_len 64 --device "$device"
complains "of memory"
complains "parameters"
complains "free"
expect 0 "$bitbyte" info --memory --n_layer 24 --json --device "$device"
[ "$(json_value out model_parameters)" = 679945728 ] || fail "the default model has 679,945,728 parameters"
expect 0 "$bitbyte" info --memory --size 680m --json --device "$device"
[ "$(json_value out model_parameters)" = 679945728 ] || fail "info --memory --size 680m: not the default model"
expect 2 "$bitbyte" info --memory --size 2m --device "$device"
complains "1m, 3m, 10m"
expect 2 "$bitbyte" info --memory --size 1m --d_ff 64 --device "$device"
complains "give --size or --d_ff, not both"
expect 0 "$bitbyte" info --memory --n_layer 2 --device "$device"
says "activations"

# Advice names the option that helps: --seq_len fixes the length, and --seq_len_cap then has no effect.
huge=("$bitbyte" train --data text.txt --size 1m --batch_size 1000000000 --device "$device")
expect 1 "${huge[@]}"
complains "--seq_len_cap"
expect 1 "${huge[@]}" --seq_len 1000
complains "a smaller --seq_len,"

for command in train compress; do
    "$bitbyte" help $command | grep -q -- '--device cpu|cuda|ref  ' || fail "help $command: the devices"
done

# Output that does not arrive is a failure.
if [ -w /dev/full ]; then
    status=0
    "$bitbyte" help train >/dev/full 2>err || status=$?
    [ "$status" = 1 ] || fail "exit status $status with a full standard output"
    complains "cannot write to standard output"
fi
echo "passed"
