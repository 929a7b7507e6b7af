#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: tests/soak.sh PROGRAM [SECONDS [SEED]]
# Trains a small model for SECONDS (3600) on 1 to 4 ranks, with --zero 1 and without, under kills, stops, hanging ranks and full disks
# at random times, each followed by a resume on another number of ranks; and in parallel an undisturbed twin: every
# two thousand steps both have the same checkpoint, bit for bit. The times differ from run to run; SEED determines the sequence of
# events.
#
# 1, 2 and 4 ranks give the same bits, 3 ranks different ones. So every third stretch of two thousand steps is trained on 3 ranks, also by
# the twin.
#
# SOAK_EVENTS="hang nothing" restricts the events to these.
set -u
seconds=${2:-3600}
seed=${3:-$RANDOM}
# A disk that fills up is a mount of its own, which goes with this process.
if [ -z "${BB_SOAK_MOUNTS-}" ] && unshare --mount true 2>/dev/null; then
    BB_SOAK_MOUNTS=1 exec unshare --mount bash "$0" "$1" "$seconds" "$seed"
fi
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
needs_mpi
RANDOM=$seed
begin=$SECONDS
STRETCH=2000
TIMEOUT=3

# shellcheck disable=SC2206 # a word for each
events=(${SOAK_EVENTS-nothing kill_rank kill_all stop_rank stop_all hang})
mkdir disk
if [ -n "${BB_SOAK_MOUNTS-}" ] && mount -t tmpfs -o size=400m none disk; then
    [ -n "${SOAK_EVENTS-}" ] || events+=(fill_disk)
else
    echo "left out: full disks (no right to mount)"
fi
run=$tmp/disk/run
model=(--data "$tmp/text.txt" --n_layer 2 --d_model 32 --n_head 2 --d_ff 48 --seq_len 16 --batch_size 1 --global_batch 8 --threads 1
    --device "$device" --seed 5 --lr 1e-3 --reduce exact --steps 1000000 --save_every 7 --keep 3 --log_every 1
    --dist_timeout "$TIMEOUT")

# start RANKS ZERO DIR STOP_AT: in the background, from where the run is
start() {
    local how=(--resume "$3" --stop_at "$4") launch=()
    [ -e "$3/config.json" ] || how=("${model[@]}" --out "$3" --stop_at "$4")
    how+=(--save_copy "$(one_of yes no)")
    if [ "$1" -gt 1 ]; then
        launch=(mpirun -q --oversubscribe --bind-to none -np "$1")
        how+=(--ddp --zero "$2")
    fi
    echo "== step $(newest "$3"): $1 ranks, zero $2, to step $4" >>log
    "${launch[@]}" "$bitbyte" train "${how[@]}" >out 2>err </dev/null &
    job=$!
}
newest() { find "$1" -name 'step-*.safetensors' 2>/dev/null | sed -E 's/.*step-0*([0-9]+)\.safetensors/\1/' | sort -n | tail -n 1 | grep . || echo 0; }
last() { echo "$1/$(printf 'step-%08d.safetensors' "$2")"; }
processes() { pgrep -f -- "$bitbyte train .*$run( |\$)" | grep -vx "$$"; }
ranks() { # those of the job that are ranks, not their launcher
    local pid
    for pid in $(processes); do
        [ "$(readlink "/proc/$pid/exe")" = "$bitbyte" ] && echo "$pid"
    done
}
one_of() { [ $# = 0 ] || shift $((RANDOM % $#)); echo "${1-}"; }
tell() { [ -z "$2" ] || kill "-$1" "$2" 2>/dev/null; }
# ended: waits for the job and all its processes; 60 seconds at most after its trouble, in which it is not stopped from outside
ended() {
    local tenths=0
    while kill -0 "$job" 2>/dev/null || [ -n "$(ranks)" ]; do
        case $(ps -o stat= -p "$job") in T*) ;; *) tenths=$((tenths + 1)) ;; esac
        # one that was stopped when all was done, and the others had ended, goes unseen
        if [ $tenths = 100 ] && [ -n "$hung" ] && [ "$(ranks)" = "$hung" ] && [ "$(newest "$run")" -ge $target ]; then tell CONT "$hung"; fi
        if [ $tenths -gt "$1" ]; then
            ps -o pid,ppid,stat,etime,wchan:20,args -p "$job,$(processes | paste -sd,)" >&2
            if command -v gdb >/dev/null; then
                for pid in "$job" $(ranks); do gdb -p "$pid" -batch -ex 'thread apply all bt 12' 2>/dev/null | grep -E '^(Thread|#)' >&2; done
            fi
            fail "$event on $size ranks${hung:+, $hung of them stopped}: still there after $(($1 / 10)) seconds"
        fi
        sleep 0.1
    done
    status=0
    wait "$job" 2>/dev/null || status=$?
}

# whole RANKS DIR: the rest of the stretch, undisturbed
whole() {
    event=nothing hung=
    size=$1
    start "$1" 0 "$2" $target
    ended 3000
    [ $status = 0 ] || fail "$2: exit status $status when nothing disturbs it"
}

declare -A done_so=()
ended_by=0 target=$STRETCH stretch=1 step=0
while :; do
    size=$(one_of 1 2 4)
    [ $((stretch % 3)) != 0 ] || size=3
    if [ $((SECONDS - begin)) -ge "$seconds" ] && [ "$step" -lt $target ]; then whole "$size" "$run"; step=$target; fi
    if [ "$step" -ge $target ]; then
        if [ "$size" = 3 ]; then whole 3 "$tmp/twin"; else whole 1 "$tmp/twin"; fi
        cmp "$(last "$run" $target)" "$(last twin $target)" || fail "at step $target the run and its twin differ; seed $seed"
        [ $((SECONDS - begin)) -lt "$seconds" ] || break
        stretch=$((stretch + 1))
        target=$((target + STRETCH))
        continue
    fi
    zero=$((RANDOM % 2))
    event=${events[RANDOM % ${#events[@]}]}
    [ "$size" -gt 1 ] || [ "$event" != hang ] || event=nothing
    before=$step
    start "$size" $zero "$run" $target
    sleep "$((RANDOM % 3)).$((RANDOM % 10))" # a job may be at its end before its trouble comes, or not yet at its first step
    allowed=" 0 " hung= # 137 too where mpirun takes so long that its rank ends it
    # shellcheck disable=SC2046 # a word for each
    case $event in
        kill_rank) allowed+="1 137 "; tell KILL "$(one_of $(ranks))" ;;
        kill_all) allowed+="137 "; for pid in $(processes); do tell KILL "$pid"; done ;;
        stop_rank) allowed+="143 "; tell TERM "$(one_of $(ranks))" ;;
        stop_all) allowed+="143 130 1 "; tell TERM "$job" ;; # mpirun tells its ranks, and waits a second for them
        hang) allowed+="1 137 "; hung=$(one_of $(ranks)); tell STOP "$hung" ;;
        fill_disk) allowed+="1 137 "; head -c 500m /dev/zero >disk/filler 2>/dev/null ;;
    esac
    if [ "$event" = nothing ]; then ended 3000; else ended 600; fi
    [ -z "$hung" ] || tell KILL "$hung"
    rm -f disk/filler
    case $allowed in *" $status "*) ;; *) fail "$event on $size ranks: exit status $status" ;; esac
    [ $status = 0 ] || ended_by=$((ended_by + 1))
    done_so[$event]=$((${done_so[$event]-0} + 1))
    step=$(newest "$run")
    [ "$step" -ge "$before" ] || fail "$event on $size ranks lost checkpoints: step $before, then $step"
    [ "$step" = 0 ] || "$bitbyte" info "$run" >/dev/null 2>err || fail "$event on $size ranks leaves what cannot be read"
done
[ "$(wc -l <"$run/metrics.jsonl")" = $target ] || fail "metrics.jsonl has $(wc -l <"$run/metrics.jsonl") lines, not $target"
for event in "${!done_so[@]}"; do printf '%s %s, ' "${done_so[$event]}" "$event"; done
echo "of which $ended_by ended the run; $target steps, the same checkpoints; $((SECONDS - begin)) s, seed $seed"
[ $ended_by -gt 0 ] || fail "nothing ended the run"
