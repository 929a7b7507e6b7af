#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Signals, a reader that goes away, a full disk: a run that is stopped by them is saved or keeps its last good checkpoint.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
long=(--data text.txt "${tiny[@]}" --steps 1000000)

for case in INT:130 TERM:143 HUP:129 XCPU:152; do
    signal=${case%:*}
    begin_output
    "$bitbyte" train "${long[@]}" --out "$signal" --log_every 1 >out 2>err &
    pid=$!
    wait_for out "step 3/"
    kill -"$signal" $pid
    # these come again by themselves
    case $signal in HUP | XCPU) kill -"$signal" $pid 2>/dev/null ;; esac
    status=0
    wait $pid || status=$?
    [ $status = "${case#*:}" ] || fail "exit status $status after SIG$signal"
    complains "finishing the step"
    says "bitbyte train --resume $signal"
    step=$(sed -nE 's/^stopped after step ([0-9]+) .*/\1/p' out)
    [ -f "$signal/$(printf 'step-%08d.safetensors' "$step")" ] || fail "no checkpoint of step $step after SIG$signal"
    expect 0 "$bitbyte" train --resume "$signal" --stop_at $((step + 2))
    says "stopped after step $((step + 2))"
done

# Under nohup SIGHUP is ignored; SIGUSR1 and SIGUSR2 save, and the run goes on.
begin_output
nohup env -u OMP_WAIT_POLICY "$bitbyte" train "${long[@]}" --out saves --log_every 1 --save_every 0 >out 2>err &
pid=$!
wait_for out "step 3/"
pgrep -x bitbyte | grep -qx $pid || fail "pgrep bitbyte does not find the process" # which started itself again
kill -HUP $pid
kill -USR1 $pid
wait_for out "saved saves/"
first=$(sed -nE 's/^step ([0-9]+)  saved .*/\1/p' out)
kill -USR2 $pid
# ended_by_term WHEN: waits for $pid, whose status says that a SIGTERM ended it
ended_by_term() {
    local status=0
    wait $pid || status=$?
    [ $status = 143 ] || fail "exit status $status $1"
}
saved_twice() { [ "$(grep -c " saved " out)" -ge 2 ]; }
wait_until "SIGUSR2 saves, too" saved_twice
second=$(sed -nE 's/^step ([0-9]+)  saved .*/\1/p' out | sed -n 2p)
[ "${second:-0}" -gt "$first" ] || fail "SIGUSR1 saved step $first, SIGUSR2 ${second:-nothing}"
wait_for out "step $((second + 2))/"
kill -TERM $pid
ended_by_term "after SIGHUP under nohup, SIGUSR1, SIGUSR2 and SIGTERM"

# A stop during a long validation does not wait for its end, and resuming repeats it. SIGUSR1 meanwhile saves.
for ((i = 0; i < 300; i++)); do cat text.txt; done >many.txt
begin_output
"$bitbyte" train "${long[@]}" --out validates --log_every 1 --save_every 0 --val_data many.txt --val_every 3 --val_batches 0 --val_seq_len 4 \
    >out 2>err &
pid=$!
wait_for out "step 3/"
kill -USR1 $pid
wait_for out "step 3  saved"
kill -TERM $pid
ended_by_term "after SIGTERM during a validation"
says "the validation at step 3 was abandoned"
says "stopped after step 3 "
expect 0 "$bitbyte" train --resume validates --stop_at 4 --val_batches 1
says "step 3  validation bpb"
# Nor for that of the last step, without which the run is not done.
begin_output
"$bitbyte" train "${long[@]}" --out last --steps 2 --log_every 1 --val_data many.txt --val_batches 0 --val_seq_len 4 >out 2>err &
pid=$!
wait_for out "step 2  saved"
kill -TERM $pid
ended_by_term "after SIGTERM during the last validation"
says "stopped after step 2 of 2"
grep -q "^done" out && fail "a run without its last validation is done"
expect 3 "$bitbyte" train --resume last --val_batches 0 --max_minutes 0.0001
says "stopped after step 2 of 2"

# A file size limit is an error, not a signal.
expect 1 bash -c 'ulimit -f 1 && exec "$@"' - "$bitbyte" pack --inputs many.txt --out_dir limited
complains "File too large"

expect 1 bash -c 'ulimit -f 1 && exec "$@"' - "$bitbyte" train "${long[@]}" --out limited_run
complains "raise it (ulimit -f)"

# Runs that begin within the same second have directories of their own; one that fails leaves none.
mkdir runs
taken=()
for ((second = EPOCHSECONDS - 1, end = second + 300; second < end; second++)); do # one of these is when the run begins
    printf -v name 'runs/%(%Y%m%d-%H%M%S)T' "$second"
    taken+=("$name")
done
mkdir "${taken[@]}"
touch "${taken[@]/%//step-00000001.safetensors}"
count=$(find runs -mindepth 1 -maxdepth 1 | wc -l)
expect 0 "$bitbyte" train "${long[@]}" --stop_at 1
grep -qE "^out      runs/[0-9]{8}-[0-9]{6}-2$" out || fail "a default --out that is taken gets no suffix"
[ -f "$(sed -nE 's/^out      //p' out)/latest" ] || fail "nothing in the default --out"
expect 1 "$bitbyte" train "${long[@]}" --data missing
[ "$(find runs -mindepth 1 -maxdepth 1 | wc -l)" = $((count + 1)) ] || fail "a run that failed left its directory"

# The second signal does not wait. This model's first step would take hours; that it has begun is seen by the processor time used
# since the run directory was opened, which comes right before it.
begin_output
"$bitbyte" train --data text.txt --out twice --n_layer 4 --d_model 256 --n_head 4 --d_ff 512 --seq_len 2048 --grad_accum 100000 --threads 1 \
    --device "$device" --steps 10 >out 2>err &
pid=$!
wait_until "the run directory is opened" [ -f twice/config.json ]
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; } # hundredths of a second
begin=$(ticks)
computes() { [ "$(ticks)" -gt $((begin + 50)) ]; }
wait_until "the first step begins" computes
kill -INT $pid
wait_for err "finishing the step"
kill -INT $pid
status=0
wait $pid || status=$?
[ $status = 130 ] || fail "exit status $status after a second SIGINT"
grep -q "stopped after" out && fail "a second SIGINT waited for the end"
[ -z "$(find twice -name '*.tmp.*')" ] || fail "a second SIGINT left a temporary file"

begin_output
"$bitbyte" generate INT --max_new_bytes 1000000000 --device "$device" >out 2>err &
pid=$!
wait_until "generate writes" [ -s out ]
kill -INT $pid
status=0
wait $pid || status=$?
[ $status = 130 ] || fail "exit status $status after a SIGINT to generate"

# The first signal ends a command that waits for input, and what it wrote does not pass for complete.
catches() { [ /proc/$pid/exe -ef "$bitbyte" ] && (((0x$(awk '/^SigCgt/ { print $2 }' /proc/$pid/status) >> 14) & 1)); }
mkfifo silent
exec 9<>silent
for command in "generate INT --interactive" "generate INT --prompts -" "compress -q -c --model INT" "decompress -q -c --model INT"; do
    begin_output
    # shellcheck disable=SC2086 # words of a command
    "$bitbyte" $command --device "$device" <silent >out 2>err &
    pid=$!
    wait_until "$command catches SIGTERM" catches
    kill -TERM $pid
    ended_by_term "after a SIGTERM to $command"
done
exec 9>&-
mkfifo ended
"$bitbyte" compress -q --model INT --device "$device" -o cut.bby <ended >out 2>err &
pid=$!
exec 9>ended
head -c 1000 text.txt >&9
wait_until "compress catches SIGTERM" catches
kill -TERM $pid
exec 9>&-
ended_by_term "after a SIGTERM to compress"
[ ! -e cut.bby ] || fail "an interrupted compress left a file that looks complete"

# A reader that goes away stops the run, saved.
"$bitbyte" train "${long[@]}" --out unheard --log_every 1 2>err | grep -m 1 -q "step 2/"
statuses=("${PIPESTATUS[@]}")
[ "${statuses[0]}" = 1 ] || fail "exit status ${statuses[0]} when nobody reads"
complains "standard output"
[ -f unheard/latest ] || fail "nothing saved when nobody reads"

# Data that shrinks or goes away under a run: an error that names the file, no signal, and what was saved stays.
for damage in shrunk removed; do
    cp text.txt $damage.txt
    begin_output
    "$bitbyte" train --data $damage.txt "${tiny[@]}" --steps 1000000 --out $damage --log_every 1 --save_every 1 --keep 2 >out 2>err &
    pid=$!
    wait_for out "step 3/"
    if [ $damage = shrunk ]; then truncate -s 100 $damage.txt; else rm $damage.txt; fi
    status=0
    wait $pid || status=$?
    [ $status = 1 ] || fail "exit status $status when its data was $damage"
    complains "$damage.txt"
    complains "while it was in use"
    expect 0 "$bitbyte" info $damage
done

# A disk that fills up while saving: an error, and the last good checkpoint stays.
if unshare -m true 2>/dev/null; then
    mkdir full
    bytes=$(wc -c <"$(find INT -name 'step-*' | head -n 1)")
    cat >full.sh <<'SCRIPT'
mount -t tmpfs -o size="$2" none full || exit 99
"$1" train "${@:3}" --out full/run --save_every 1
status=$?
[ -z "$(find full -name '*.tmp.*')" ] || exit 98
"$1" info full/run --json >good.json || exit 97
exit $status
SCRIPT
    expect 1 unshare -m bash full.sh "$bitbyte" $((bytes * 7 / 2 + 65536)) "${long[@]}"
    complains "No space left on device"
    says "note: full/run: a checkpoint takes "
    says "enough for 3: free some space, or keep fewer"
    json_value good.json training_state | grep -qE '"step":[1-9]' || fail "no good checkpoint after the disk was full"
    # not even one
    sed -i "/^status/,\$d" full.sh
    expect 1 unshare -m bash full.sh "$bitbyte" $((bytes / 2)) "${long[@]}"
    complains "full/run: a checkpoint takes "
    complains "are free"
    grep -q "^step 1/" out && fail "trained without room for a checkpoint"
else
    echo "skipped: a full disk (no right to mount)"
fi
echo "passed"
