#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The batch script for Slurm and the launcher's script for Kubernetes in docs/QUICK_START.md, unmodified: on a small run, with
# replacements for srun and scontrol, and an mpirun that starts two local ranks.
set -u
guide=$(cd "$(dirname "$0")/.." && pwd)/docs/QUICK_START.md
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
needs_mpi
mpirun=$(command -v mpirun)

# block NAME: the block under <!-- NAME -->
block() { awk -v mark="<!-- $1 -->" '$0 == mark { marked = 1; next } /^```/ && inside { exit } /^```/ && marked { inside = 1; next } inside' "$guide"; }
mkdir bin shared shared/runs
cp text.txt shared/data
cat >bin/mpirun <<SCRIPT
#!/bin/sh
exec "$mpirun" --oversubscribe -np 2 "\$@"
SCRIPT
cat >bin/srun <<'SCRIPT'
#!/bin/sh
while [ "${1#--}" != "$1" ]; do echo "$1" >>srun_options; shift; done
exec mpirun --bind-to none "$@"
SCRIPT
cat >bin/scontrol <<'SCRIPT'
#!/bin/sh
echo "$*" >>scontrol_calls
SCRIPT
# What the examples leave to the defaults, small.
cat >bin/bitbyte <<SCRIPT
#!/bin/sh
case " \$* " in *" --resume "*) exec "$bitbyte" "\$@" ;; esac
exec "$bitbyte" "\$@" --n_layer 1 --d_model 32 --n_head 2 --d_ff 48 --seq_len 32 --batch_size 4 --steps 800 --device $device --threads 1
SCRIPT
chmod +x bin/*
export PATH=$tmp/bin:$PATH

# The limit of four hours is $LIMIT here: too short for the run in the first two jobs, and enough in the third.
block slurm | sed "s|/shared|$tmp/shared|g; s/--max_minutes 235/--max_minutes \"\$LIMIT\"/" >batch
grep -q '^srun ' batch || fail "no batch script in $guide"
grep -qF 'max_minutes "$LIMIT"' batch || fail "the batch script has no --max_minutes 235"
bash -n batch || fail "the batch script is not one"
if command -v shellcheck >/dev/null; then shellcheck batch || fail "the batch script"; fi
for job in 1 2; do
    LIMIT=0.0005 SLURM_JOB_ID=17 expect 3 bash batch
    [ "$(wc -l <scontrol_calls)" = $job ] || fail "a job that ran out of time is not requeued once"
    [ ! -e shared/runs/big/step-00000800.safetensors ] || fail "a job that ran out of time is done"
done
LIMIT=60 SLURM_JOB_ID=17 expect 0 bash batch
[ "$(wc -l <scontrol_calls)" = 2 ] || fail "a job that is done is requeued"
[ "$(sort -u scontrol_calls)" = "requeue 17" ] || fail "scontrol was called with $(sort -u scontrol_calls)"
[ -e shared/runs/big/step-00000800.safetensors ] || fail "no last checkpoint"
says "done: 800 steps"

rm -r shared/runs/big
block launcher | awk '/^ *- \|$/ { inside = index($0, "-") + 1; next } inside && match($0, /[^ ]/) && RSTART < inside { exit } inside { print substr($0, inside + 1) }' |
    sed "s|/shared|$tmp/shared|g" >launcher
grep -q '^exec mpirun ' launcher || fail "no launcher in $guide: $(cat launcher)"
sh -n launcher || fail "the launcher's script is not one"
if command -v yq >/dev/null; then block launcher | yq . >/dev/null || fail "the MPIJob is no YAML"; fi
sed 's/ --save_minutes/ --stop_at 20&/' launcher >first
expect 0 sh first
says "stopped after step 20"
expect 0 sh launcher
says "resumes  $tmp/shared/runs/big"
says "done: 800 steps"
echo "passed"
