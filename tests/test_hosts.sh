#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Training on several hosts, which are namespaces of this machine: the same checkpoint as from one process; and failures of one
# host (a rank killed, its network cut, or the launcher's, its disk full, its data missing or truncated, a stop request to one rank): the job
# ends within 30 seconds with one message that names rank and host, and resumes to the same bits. Needs root and an MPI.
set -u
guide=$(cd "$(dirname "$0")/.." && pwd)/docs/QUICK_START.md
# shellcheck source=tests/hosts.sh
. "$(dirname "$0")/hosts.sh"
why_not=$(hosts_possible) || { echo "skipped: several hosts on one machine: $why_not"; exit 77; }
# With mounts of its own, which go with it.
[ -n "${BB_TEST_OWN_MOUNTS-}" ] || BB_TEST_OWN_MOUNTS=1 exec unshare --mount bash "$0" "$@"
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

needs_mpi
mkdir hosts data full
mount -t tmpfs none full || fail "no tmpfs"
trap 'hosts_close; cleanup' EXIT
hosts_open "$tmp/hosts" node1 node2 node3 || fail "the hosts do not start"

# One file, seen by each host in a place of its own: what happens to one host's copy does not to the other's.
cp text.txt data/text
host_run node2 sh -c 'mount -t tmpfs none data && cp text.txt data/text' || fail "node2 has no data"
model=(--data "$tmp/data/text" --n_layer 2 --d_model 32 --n_head 2 --d_ff 48 --seq_len 32 --batch_size 1 --threads 1
    --device "$device" --seed 3 --lr 1e-3 --reduce exact --global_batch 8)

# job HOSTS ARGUMENTS…: ranks on these hosts; never -q, as Open MPI's words count among the messages.
job() {
    hosts_mpirun --oversubscribe --bind-to none -x ASAN_OPTIONS --host "$1" \
        "$bitbyte" train --ddp "${@:2}"
}
last() { echo "$1/$(printf 'step-%08d.safetensors' "$2")"; }
newest() { find "$1" -name 'step-*.safetensors' | sed -E 's/.*step-0*([0-9]+)\.safetensors/\1/' | sort -n | tail -n 1; }

# ---- one result
expect 0 "$bitbyte" train "${model[@]}" --steps 8 --out "$tmp/one"
expect 0 job node1:2,node2:2 "${model[@]}" --steps 8 --out "$tmp/two"
says "rank     0 on node1"
says " 3 on node2"
cmp "$(last one 8)" "$(last two 8)" || fail "two hosts and one process end with different checkpoints"

# ---- troubles
# begin HOSTS ARGUMENTS…: a long job in the background, in the run directory $name
begin() {
    begin_output
    job "$1" "${model[@]}" --steps 1000000 --save_every 3 --log_every 1 --dist_timeout 5 --out "$tmp/$name" "${@:2}" >out 2>err \
        </dev/null &
    job=$!
    wait_for out "step 4/"
}
# until_gone COMMAND…: waits until it fails; 30 seconds at most, in which the job is not stopped from outside.
until_gone() {
    local tenths=0
    while "$@" >/dev/null 2>&1; do
        case $(ps -o stat= -p "$job") in T*) ;; *) tenths=$((tenths + 1)) ;; esac
        [ $tenths -le 300 ] || fail "$name: still there after 30 seconds: $*"
        sleep 0.1
    done
}
# ended STATUS MESSAGE…: the job did, so, with one message in which all these words stand, and no rank is left on any host.
ended() {
    local got=0 word message
    until_gone kill -0 "$job"
    wait "$job" || got=$?
    # Where a rank is killed, Open MPI in one that was sending to it may end that one first, and the job with words of its own.
    if [[ $name == killed* ]] && [ "$got" = 255 ] && grep -q 'pml_ob1_sendreq.* FATAL' err; then
        until_gone ranks_of "$name"
        return 0
    fi
    [ "$got" = "$1" ] || fail "exit status $got instead of $1: $name"
    until_gone ranks_of "$name"
    [ $# -gt 1 ] || return 0
    message=$(grep -E '^bitbyte train: |noticed that process rank' err)
    [ "$(wc -l <<<"$message")" = 1 ] || fail "$name: not one message"
    for word in "${@:2}"; do
        grep -qF -- "$word" <<<"$message" || fail "$name: the message does not say '$word'"
    done
}
# From the last checkpoint, on both hosts, three steps further: the bits of a run that nothing disturbed.
goes_on() {
    local end
    end=$(($(newest "$name") + 3))
    expect 0 job node1:1,node2:1 --resume "$tmp/$name" --stop_at $end
    expect 0 "$bitbyte" train "${model[@]}" --steps 1000000 --stop_at $end --out "$tmp/undisturbed-$name"
    cmp "$(last "$name" $end)" "$(last "undisturbed-$name" $end)" || fail "$name: a resumed run ends with other bits"
}

for rank in 0 3; do
    name=killed$rank
    begin node1:2,node2:2
    kill -KILL "$(rank_of "$name" $rank)"
    ended 137 "process rank $rank with PID" "on node node$((1 + rank / 2)) exited on signal 9 (Killed)"
    goes_on
done

# What was sent to node2 gets lost; it hears no more, either. mpirun alone would wait for it for a quarter of an hour.
name="cut"
begin node1:2,node2:2
host_cut node2
ended 137 "rank 0 on node1: rank 2 on node2, one of 2, sent no heartbeat for "
host_join node2
goes_on

# mpirun on a host without ranks, which is cut off: the ranks end, and it ends by the guide's agent.
name=alone
awk '$0 == "<!-- agent -->" { marked = 1; next } /^```/ && inside { exit } /^```/ && marked { inside = 1; next } inside' "$guide" >agent
grep -q '^ssh ' agent || fail "no agent in $guide"
if command -v shellcheck >/dev/null; then shellcheck agent || fail "the agent"; fi
chmod +x agent
hosts_agent=$tmp/agent
PATH=$tmp/hosts/bin:$PATH begin node2:2,node3:2
hosts_agent=$tmp/hosts/agent
host_cut node1
until_gone ranks_of "$name"
wait "$job" && fail "$name: exit status 0"
complains "the connection is lost"
grep -qF 'Z rank 0 on node2: the launcher, on another host, sent no heartbeat for 5 seconds: ' alone/errors.log ||
    fail "$name: errors.log says $(cat alone/errors.log)"
[ "$(wc -l <alone/errors.log)" = 1 ] || fail "$name: not one message in errors.log"
host_join node1
goes_on

# Any rank can be asked; one checkpoint, at the end of the same step on all.
for rank in 0 3; do
    name=asked$rank
    begin node1:2,node2:2
    kill -TERM "$(rank_of "$name" $rank)"
    ended 143
    says "rank $rank on node$((1 + rank / 2)) was asked to stop"
    step=$(sed -nE 's/^stopped after step ([0-9]+) .*/\1/p' out)
    [ "$(newest "$name")" = "$step" ] || fail "stopped after step $step, the newest checkpoint is of $(newest "$name")"
    [ "$(grep -c " saved .*$(last "$name" "$step")" out)" = 1 ] || fail "a stop saved more than once"
    goes_on
done

# Rank 0 writes: the disk fills up, and is made larger.
name=full
bytes=$(wc -c <"$(last one 8)")
mount -o remount,size=$((bytes * 5 / 2)) full
expect 1 job node1:1,node2:1 "${model[@]}" --steps 1000000 --save_every 3 --out "$tmp/full/run"
[ "$(grep -c '^bitbyte train: ' err)" = 1 ] || fail "a full disk: not one message"
complains "rank 0 on node1: "
complains "No space left on device"
mount -o remount,size=$((bytes * 20)) full
end=$(($(newest full/run) + 3))
expect 0 job node1:1,node2:1 --resume "$tmp/full/run" --stop_at $end
expect 0 "$bitbyte" train "${model[@]}" --steps 1000000 --stop_at $end --out "$tmp/undisturbed-full"
cmp "$(last full/run $end)" "$(last undisturbed-full $end)" || fail "after a full disk a run ends with other bits"

# Data that gets lost on one host under the run
name=shrunk
begin node1:2,node2:2
host_run node2 truncate -s 100 data/text
ended 1 " on node2" "$tmp/data/text" "while it was in use"
host_run node2 cp text.txt data/text
goes_on

# A host that does not see the run directory, or the data: nothing is begun.
host_run node2 mount -t tmpfs none full
expect 1 job node1:1,node2:1 --resume "$tmp/full/run"
complains "rank 1 on node2: $tmp/full/run: cannot read"
host_run node2 mount -t tmpfs none data
expect 1 job node1:1,node2:1 "${model[@]}" --steps 8 --out "$tmp/unseen"
[ "$(grep -c '^bitbyte train: ' err)" = 1 ] || fail "hidden data: not one message"
complains "rank 1 on node2: "
complains "$tmp/data/text"
[ ! -e unseen ] || fail "a run that could not start left its directory"
host_run node2 umount data
expect 0 job node1:1,node2:1 "${model[@]}" --steps 8 --out "$tmp/unseen"
cmp "$(last one 8)" "$(last unseen 8)" || fail "a run ends with other bits once its data is seen"
echo "passed"
