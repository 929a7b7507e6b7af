#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A disk with read errors, in the data of a run and in checkpoints: an error that names the file, no signal, and the run continues once
# the disk is repaired. The disk is a file behind a loop device, truncated so that its end cannot be read. Needs root.
set -u
# With mounts of its own, which go with it.
unshare --mount true 2>/dev/null || { echo "skipped: no right to mount"; exit 77; }
[ -n "${BB_TEST_OWN_MOUNTS-}" ] || BB_TEST_OWN_MOUNTS=1 exec unshare --mount bash "$0" "$@"
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

# The first megabyte, which is always there, holds the file system's own blocks, and a filler.
truncate -s 32M image
PATH=$PATH:/usr/sbin:/sbin
mkfs.ext2 -q -F -b 1024 -N 64 image 2>/dev/null || { echo "skipped: no mkfs.ext2"; exit 77; }
mkdir disk
mount -o loop,noatime image disk 2>/dev/null || { echo "skipped: no loop devices"; exit 77; }

head -c 2M /dev/zero >disk/filler

# break_from BYTE FILE…: the disk ends there; what of these files was in memory is forgotten. mend: as it was.
break_from() {
    local file
    sync -f disk
    [ -e whole ] || cp --sparse=always image whole
    truncate -s "$1" image
    for file in "${@:2}"; do dd if="$file" iflag=nocache count=0 status=none; done
}
mend() {
    cp --sparse=always whole copy
    dd if=copy of=image bs=1M conv=notrunc status=none
    truncate -s 32M image
    rm whole copy
}
checkpoint() { printf '%s/step-%08d.safetensors' "$1" "$2"; }
newest() { find "$1" -name 'step-*.safetensors' | sed -E 's/.*step-0*([0-9]+)\.safetensors/\1/' | sort -n | tail -n 1; }

# ---- data under a run
for ((i = 0; i < 300; i++)); do cat text.txt; done >many.txt
cp many.txt disk/data.txt
sync -f disk
long=(--steps 1000000 --log_every 1 --save_every 1 --keep 2)
begin_output
"$bitbyte" train --data disk/data.txt "${tiny[@]}" "${long[@]}" --out run >out 2>err &
pid=$!
wait_for out "step 3/"
break_from 1M disk/data.txt
cat disk/data.txt >/dev/null 2>&1 && { kill $pid; echo "skipped: this kernel reads beyond the end of a loop device's file"; exit 77; }
status=0
wait $pid || status=$?
[ $status = 1 ] || fail "exit status $status when its data can't be read"
complains "disk/data.txt: cannot read "
complains "Input/output error"
[ "$(grep -c '^bitbyte train: ' err)" = 1 ] || fail "not one message"
step=$(newest run)
[ "$step" -ge 1 ] || fail "no checkpoint"
expect 0 "$bitbyte" info --verify run
expect 1 "$bitbyte" train --resume run # the disk is as it was
complains "Input/output error"
[ "$(newest run)" = "$step" ] || fail "a resume without data changed the run"
mend
expect 0 "$bitbyte" train --resume run --stop_at $((step + 3))
expect 0 "$bitbyte" train --data disk/data.txt "${tiny[@]}" "${long[@]}" --out undisturbed --stop_at $((step + 3))
cmp "$(checkpoint run $((step + 3)))" "$(checkpoint undisturbed $((step + 3)))" || fail "a resumed run ends with other bits"

# ---- checkpoints
rm disk/data.txt
"$bitbyte" train --data many.txt "${tiny[@]}" --steps 4 --save_every 1 --out disk/run >out 2>err || fail "no run on the disk"
files=(disk/run/step-*)
[ ${#files[@]} = 4 ] || fail "${#files[@]} checkpoints"
break_from 1M "${files[@]}"
for file in "${files[@]}"; do
    for command in "info" "info --verify" "generate --max_new_bytes 5" "export --out packed"; do
        # shellcheck disable=SC2086 # words of a command
        expect 1 "$bitbyte" $command "$file"
        grep -qF "$file: cannot read " out err || fail "$command does not say what it cannot read" # --verify lists it in out
    done
done
expect 1 "$bitbyte" train --resume disk/run
complains "Input/output error"
mend
expect 0 "$bitbyte" info --verify disk/run
[ "$(grep -c ': good, ' out)" = 4 ] || fail "checkpoints changed while they could not be read"
echo "passed"
