#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# convert and export: formats by name, sources of every kind, files without the number of heads, messages. $1: the program.
set -uo pipefail
formats=$(realpath "$(dirname "$0")/formats")
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

head -c 60000 /dev/urandom | base64 >text
"$bitbyte" train --data text --out run --n_layer 1 --d_model 256 --n_head 2 --d_ff 256 --seq_len 16 --batch_size 2 --steps 2 \
  >/dev/null 2>&1 || fail "no run to try it on"

# The format is that of --to, else of OUT's name.
expect 0 "$bitbyte" convert run model.safetensors
says "model.safetensors: bitbyte"
expect 0 "$bitbyte" convert run model.gguf
says "model.gguf: gguf"
expect 0 "$bitbyte" convert run folder/ --type bf16
says "folder/: hf"
mkdir empty
expect 0 "$bitbyte" convert run --out empty --json
[ "$(json_value out format)" = hf ] && [ "$(json_value out out)" = empty ] || fail "--json"
[ "$(json_value out bytes)" = "$(find empty -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')" ] || fail "bytes of a folder"
expect 0 "$bitbyte" convert run packed.safetensors --to packed
expect 0 "$bitbyte" export run --out packed.too
cmp -s packed.safetensors packed.too || fail "export and convert --to packed differ"
expect 0 "$bitbyte" export run --out too.gguf
cmp -s model.gguf too.gguf || fail "export and convert to gguf differ"
expect 1 "$bitbyte" convert run missing/model.gguf
complains "missing/model.gguf: cannot create: "
grep -q damaged err && fail "a file that cannot be written passes for a damaged checkpoint"
expect 2 "$bitbyte" convert run
complains "OUT is missing"
expect 2 "$bitbyte" convert run x.gguf --to gguv
complains "the formats are packed, bitbyte, safetensors, gguf, hf"
expect 2 "$bitbyte" convert run x --license mit
complains "format bitbyte cannot hold a license"

# A signal leaves nothing. Writes are slow, so that it comes between two of them.
if strace -o calls true 2>/dev/null; then
  for out in stopped.safetensors stopped.gguf stopped_hf/; do
    strace -D -o calls -e trace=write -e inject=write:delay_enter=300000 "$bitbyte" convert run $out >out 2>err &
    pid=$!
    begun() { [ -n "$(find . -path './stopped*' -type f)" ]; }
    wait_until "$out is being written" begun
    kill -TERM $pid
    status=0
    wait $pid || status=$?
    [ $status = 143 ] || fail "exit status $status after SIGTERM to convert run $out"
    [ -z "$(find . -path './stopped*')" ] || fail "SIGTERM left $(find . -path './stopped*')"
  done
else
  echo "skipped: signals (no strace)"
fi

# A chat template: a text or a file; the file has it, all conversions keep it, and training from it, too.
template() { "$bitbyte" info "$1" --json | json_value /dev/stdin chat_template; }
printf '{role}> {content}\n' >template
expect 0 "$bitbyte" export run --out chat.safetensors --chat_template '{role}> {content}\n'
expect 0 "$bitbyte" convert run same.safetensors --to packed --chat_template template
cmp -s chat.safetensors same.safetensors || fail "a text and a file with it give two models"
expect 0 "$bitbyte" convert chat.safetensors chat.gguf
expect 0 "$bitbyte" convert chat.gguf chat_hf/
expect 0 "$bitbyte" convert chat_hf init.safetensors
expect 0 "$bitbyte" info init.safetensors
says 'chat_template   "{role}> {content}\n"'
expect 0 "$bitbyte" train --init init.safetensors --data text --out chat_run --seq_len 16 --batch_size 2 --steps 1
expect 0 "$bitbyte" train --resume chat_run --steps 2
for model in chat.safetensors chat.gguf chat_hf init.safetensors chat_run; do
  [ "$(template "$model")" = '{role}> {content}' ] || fail "$model: its chat template is $(template "$model")"
done
expect 0 "$bitbyte" convert chat.gguf without.safetensors --chat_template ''
"$bitbyte" info without.safetensors | grep chat_template && fail "it is not taken out"
expect 2 "$bitbyte" export run --out x --chat_template '{role}: {content}'
complains "--chat_template {role}: {content}: chat template: expected a text after {content}"
expect 2 "$bitbyte" export run --out x --chat_template '{role}: {content}\x00'
complains "expected a text without zero bytes"
expect 1 "$bitbyte" export run --out x --chat_template missing
complains "expected a text with {role} and {content}, or a file with such a text: missing"
[ ! -e x ] || fail "a refused template leaves a file"

# The model card says what it was trained on, and how.
"$bitbyte" train --data text --val_data text --val_every 1 --val_batches 1 --out carded --n_layer 1 --d_model 256 --n_head 2 --d_ff 256 --seq_len 16 \
  --batch_size 2 --steps 2 >/dev/null 2>&1 || fail "no run with validation"
expect 0 "$bitbyte" convert carded carded.gguf
expect 0 "$bitbyte" convert carded carded_hf/
for card in carded.gguf.README.md carded_hf/README.md; do
  for line in "| steps | 2 |" "| bytes trained on |" "| held-out bits per byte | " "| \`text\` | $(wc -c <text) | " "bitbyte train --data DATA" \
    "--n_layer 1 --d_model 256"; do
    grep -qF -- "$line" "$card" || fail "$card lacks '$line': $(cat "$card")"
  done
  grep -q ' null' "$card" && fail "$card has an option that was not set: $(cat "$card")"
done

# Nothing is written over a source, and a failure leaves what was there.
expect 2 "$bitbyte" convert model.gguf model.gguf
complains "the file that the model was loaded from"
expect 2 "$bitbyte" convert empty empty/model.safetensors
complains "the file that the model was loaded from"
expect 2 "$bitbyte" convert empty/config.json empty/model.safetensors
complains "the file that the model was loaded from"
expect 2 "$bitbyte" convert empty empty
complains "the folder is not empty"
expect 2 "$bitbyte" convert run folder/ # a new folder's name, which is taken
complains "the folder is not empty"

# Every command opens every kind, and says the same.
"$bitbyte" generate run --prompt ab --max_new_bytes 20 --temperature 0 >text.run || fail "generate run"
for model in model.safetensors packed.safetensors empty empty/config.json; do
  "$bitbyte" generate "$model" --prompt ab --max_new_bytes 20 --temperature 0 >text.other || fail "generate $model"
  cmp -s text.run text.other || fail "$model generates another text"
  expect 0 "$bitbyte" eval "$model" text --batches 1
  expect 0 "$bitbyte" info "$model" --json
  [ "$(json_value out parameters)" = "$("$bitbyte" info run --json | json_value /dev/stdin parameters)" ] || fail "info $model"
done
expect 0 "$bitbyte" info --verify empty
says "empty: good, 11 tensors"
"$bitbyte" train --init empty --data text --out from_hf --seq_len 16 --batch_size 2 --steps 1 >out 2>err || fail "train --init empty"
"$bitbyte" train --init model.gguf --data text --out from_gguf --seq_len 16 --batch_size 2 --steps 1 >out 2>err ||
  fail "train --init model.gguf"

# A run's folder remains a run, also when config.json lies in it; one that is neither is refused by what it lacks.
expect 0 "$bitbyte" info run --json
[ "$(json_value out kind)" = checkpoint ] || fail "run is no longer a run"
expect 2 "$bitbyte" eval run/config.json text
complains "is the configuration of a run, not of a model"
mkdir neither
expect 1 "$bitbyte" info neither
complains "neither"

# The original's files without args do not say how many heads there are.
for command in "info state.pt" "info --verify state.pt" "eval state.pt text --batches 1" "generate state.pt --max_new_bytes 2" \
  "convert state.pt new.safetensors --allow_overwrite" "train --init state.pt --data text --seq_len 16 --steps 1 --out heads"; do
  read -ra words <<<"${command/state.pt/$formats/state.pt}"
  "$bitbyte" "${words[@]}" >out 2>err && fail "$command: succeeded without --n_head"
  grep -q -- "--n_head N" out err || fail "$command does not name --n_head"
  expect 0 "$bitbyte" "${words[@]}" --n_head 2
done
expect 2 "$bitbyte" generate "$formats/trainer.pt" --n_head 1
complains "--n_head 1 contradicts the file, which has 2"
expect 2 "$bitbyte" info model.safetensors --n_head 1
complains "--n_head 1 contradicts the file, which has 2"

# The original's checkpoint goes on at the next step; what holds no training state says so.
resume() { "$bitbyte" train --resume "$@" --data text --seq_len 16 --batch_size 1 --grad_accum 1 --save_every 100 >out 2>err; }
resume "$formats/resume.pt" --optim adamw --steps 5 --out resumed || fail "--resume resume.pt"
[ "$(head -n 1 resumed/metrics.jsonl | json_value /dev/stdin step)" -ge 4 ] || fail "the next step is not number 4"
[ "$("$bitbyte" info resumed --json | perl -MJSON::PP -e 'local $/; print decode_json(<STDIN>)->{training_state}{optimizer_steps}')" = 5 ] ||
  fail "updates are not counted on"
resume "$formats/bitsandbytes.pt" --optim adamw --steps 5 --out other && fail "--resume bitsandbytes.pt succeeded"
complains "--no_opt_state"
resume "$formats/bitsandbytes.pt" --no_opt_state --steps 5 --out fresh || fail "--resume bitsandbytes.pt --no_opt_state"
for model in model.gguf packed.safetensors model.safetensors empty "$formats/state.pt --n_head 2"; do
  # shellcheck disable=SC2086
  resume $model --optim adamw --steps 5 --out none && fail "--resume $model succeeded"
  grep -qE -- "--init|the original checkpoint" err || fail "--resume $model does not point to --init"
done

# The same bytes whatever processor writes them.
for level in generic avx2; do
  for format in packed gguf bitbyte; do
    BITBYTE_CPU=$level "$bitbyte" convert run "$level.$format" --to "$format" >out 2>err || {
      grep -q "this processor has" err && continue 2
      fail "convert at $level"
    }
    "$bitbyte" convert run "best.$format" --to "$format" >out 2>err || fail "convert --to $format"
    cmp -s "$level.$format" "best.$format" || fail "$format: $level writes another file"
  done
done
echo "every kind of model opens, and is converted by its name"
