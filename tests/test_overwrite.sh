#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# No command writes over its own source, or over what a run needs to go on: by links neither. $1: the program.
set -uo pipefail
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

head -c 60000 /dev/urandom | base64 >text
"$bitbyte" train --data text --out run --n_layer 1 --d_model 16 --n_head 2 --d_ff 16 --seq_len 16 --batch_size 2 --steps 4 \
  --save_every 2 --device ref >/dev/null 2>&1 || fail "no run to try it on"
checkpoint=run/step-00000004.safetensors
cp "$checkpoint" kept && cp run/config.json config.kept && cp run/latest latest.kept || fail "cannot copy"

# refused MESSAGE COMMAND...: fails, says so, and changes nothing of the run.
refused() {
  local message=$1
  shift
  "$bitbyte" "$@" >out 2>err && fail "$*: succeeded"
  grep -qF -- "$message" err || fail "$*: expected '$message', found: $(cat err)"
  cmp -s "$checkpoint" kept || fail "$*: the checkpoint is lost"
  cmp -s run/config.json config.kept || fail "$*: config.json is lost"
  cmp -s run/latest latest.kept || fail "$*: latest is lost"
}

ln -s "$checkpoint" soft && ln "$checkpoint" hard && cp "$checkpoint" other.safetensors || fail "cannot link"
for target in "$checkpoint" soft hard "./run/../$checkpoint"; do
  refused "checkpoint with training state" export run --out "$target"
  refused "the file that the model was loaded from" export run --out "$target" --allow_overwrite
done
refused "checkpoint with training state" export run --out other.safetensors
refused "checkpoint with training state" export run --out run/step-00000002.safetensors
refused "the configuration of a run" export run --out run/config.json
refused "note of its newest checkpoint" export run --out run/latest
for target in "$checkpoint" soft run/config.json run/latest; do
  refused "would be lost" generate run --prompt a --max_new_bytes 2 --device ref --metrics_json "$target"
done

"$bitbyte" export run --out packed --json >/dev/null || fail "export to a new file"
"$bitbyte" export run --out packed --json >/dev/null || fail "export over a packed file of before"
"$bitbyte" export run --out other.safetensors --allow_overwrite >/dev/null || fail "--allow_overwrite"
refused "the file that the model was loaded from" export packed --out packed
refused "an input of this command" generate packed --prompt a --max_new_bytes 2 --device ref --metrics_json packed
cmp -s packed other.safetensors || fail "the packed files differ"
"$bitbyte" pack text --out_dir shards >/dev/null || fail "pack"
cp shards/shard_00000.bin shard.kept
refused "is an input, and would be overwritten" pack shards/shard_00000.bin --out_dir shards --overwrite
cmp -s shards/shard_00000.bin shard.kept || fail "the shard is lost"
echo "nothing is written over by mistake"
