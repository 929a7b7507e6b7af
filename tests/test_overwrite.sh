#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# No command overwrites its own source, or files that a run needs to continue, even through links. $1: the program.
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
refused "pointer to a run's newest checkpoint" export run --out run/latest
for target in "$checkpoint" soft run/config.json run/latest; do
  refused "would be overwritten" generate run --prompt a --max_new_bytes 2 --device ref --metrics_json "$target"
done

"$bitbyte" export run --out packed --json >/dev/null || fail "export to a new file"
"$bitbyte" export run --out packed --json >/dev/null || fail "export over a packed file of before"
"$bitbyte" export run --out other.safetensors --allow_overwrite >/dev/null || fail "--allow_overwrite"
refused "the file that the model was loaded from" export packed --out packed
refused "an input of this command" generate packed --prompt a --max_new_bytes 2 --device ref --metrics_json packed
refused "an input of this command" score packed text --device ref --html packed
refused "would be overwritten" score run text --device ref --html "$checkpoint"
cmp -s packed other.safetensors || fail "the packed files differ"
"$bitbyte" pack text --out_dir shards >/dev/null || fail "pack"
cp shards/shard_00000.bin shard.kept
refused "is an input, and would be overwritten" pack shards/shard_00000.bin --out_dir shards --overwrite
cmp -s shards/shard_00000.bin shard.kept || fail "the shard is lost"

# ---- train --out in a folder of another program: its files stay, all of them.
trains() { # DIR [OPTION...]: one step
  local out=$1
  shift
  "$bitbyte" train --data text --out "$out" --n_layer 1 --d_model 16 --n_head 2 --d_ff 16 --seq_len 16 --batch_size 2 --steps 1 \
    --log_every 1 --device ref "$@" >out 2>err
}
# foreign DIR FILE: no run begins in DIR because of FILE, and DIR is as it was; --allow_overwrite begins one.
foreign() {
  cp -a "$1" before
  trains "$1" && fail "$1: a run begins over $2 of another program"
  grep -qF "$1/$2: expected a file of a training run" err || fail "$1: found: $(cat err)"
  grep -qF -- --allow_overwrite err || fail "$1: does not say what to do"
  diff -r --no-dereference "$1" before || fail "$1: a run that was refused changed it"
  trains "$1" --allow_overwrite || fail "$1 --allow_overwrite: $(cat err)"
  [ "$(cat "$1/latest")" = step-00000001.safetensors ] || fail "$1 --allow_overwrite: latest"
  rm -r before
}
mkdir hf broken linked logged begun
echo '{"model_type": "llama", "hidden_size": 64}' >hf/config.json
echo weights >hf/model.safetensors
foreign hf config.json
[ "$(cat hf/model.safetensors)" = weights ] || fail "another program's weights are lost"
echo '{"model_type": ' >broken/config.json
foreign broken config.json
mkdir linked/epoch-3 && ln -s epoch-3 linked/latest
cp -a linked before
for option in "" --allow_overwrite; do
  trains linked $option && fail "a run begins where latest is a link to a folder"
  grep -qF "linked/latest: expected a file of a training run" err || fail "linked: found: $(cat err)"
  diff -r --no-dereference linked before || fail "linked: a run that was refused changed it"
done
rm -r before
echo 'epoch,loss' >logged/metrics.jsonl
foreign logged metrics.jsonl
# A run's own, of one that was killed before its first checkpoint, are no obstacle.
cp run/config.json begun/ && : >begun/metrics.jsonl
trains begun || fail "a run does not begin where an earlier one left only its configuration: $(cat err)"
rm begun/step-* && trains begun || fail "a run does not begin where an earlier one left its log: $(cat err)"
# What resumes from a file begins a run in its own directory, too.
mkdir other && echo '{}' >other/config.json
trains other --resume run/step-00000002.safetensors --steps 3 && fail "a resumed run begins over another program's config.json"
[ "$(cat other/config.json)" = '{}' ] || fail "a resumed run replaced another program's config.json"

# ---- a pipe or a device stays one, and a link keeps pointing to its file
mkfifo pipe && ln -s target link || fail "cannot make a pipe and a link"
head -c 300 text >small
through() { # COMMAND...: its output through the pipe is in `piped`
  timeout 100 cat pipe >piped 2>/dev/null &
  "$bitbyte" "$@" >out 2>err || fail "$*: $(cat err)"
  [ -p pipe ] || fail "$*: the pipe is lost"
  wait
  [ -s piped ] || fail "$*: nothing came through the pipe"
}
through compress --model run --device ref -o pipe small
mv piped small.bby
through decompress --model run --device ref -f -o pipe small.bby
cmp -s piped small || fail "decompress into a pipe: another text"
through report run --out pipe
for command in "compress --model run --device ref -f -o link small" "report run --out link" "score run small --device ref --html link" \
  "generate run --max_new_bytes 2 --device ref --metrics_json link"; do
  echo before >target
  ln -f target old
  "$bitbyte" $command >out 2>err || fail "$command: $(cat err)"
  [ -L link ] && [ "$(head -c 6 target)" != before ] || fail "$command: the link is lost"
  [ "$(cat old)" = before ] || fail "$command: written in place"
done
[ -z "$(find . -name '*.partial')" ] || fail "temporary files are left"
echo "nothing is written over by mistake"
