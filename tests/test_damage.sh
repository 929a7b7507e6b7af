#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checkpoints damaged on disk: how that is reported, and how every command handles it.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
# flip FILE PLACE: changes the byte that many bytes before the end.
flip() {
    local at byte
    at=$(($(wc -c <"$1") - $2))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    printf "\\x$(printf %02x $((byte ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
checkpoint() { printf '%s/step-%08d.safetensors' "$1" "$2"; }

expect 0 "$bitbyte" train --data text.txt --out good "${tiny[@]}" --steps 30 --save_every 5
expect 0 "$bitbyte" info --verify good
[ "$(grep -c ': good, ' out)" = 6 ] || fail "--verify of a run directory does not name every checkpoint"
expect 0 "$bitbyte" info --verify "$(checkpoint good 5)" --json
[ "$(json_value out good)" = 1 ] || fail "--verify --json: good"
expect 2 "$bitbyte" info --verify
expect 2 "$bitbyte" info --verify good --memory

# The last byte is one of the last tensor's; one in the header is of the training state.
cp -r good bad
flip "$(checkpoint bad 30)" 1
sed -i 's/\\"step\\":25,/\\"step\\":24,/' "$(checkpoint bad 25)"
truncate -s -1 "$(checkpoint bad 20)"
expect 1 "$bitbyte" info --verify bad
[ "$(grep -c ': DAMAGED, ' out)" = 3 ] || fail "--verify finds other than three damaged checkpoints"
says "tensor 'opt.v.norm_f.weight' is damaged: expected the checksum"
says "'__metadata__' is damaged"
says "truncated"
expect 1 "$bitbyte" info --verify bad --json
json_value out files | grep -q '"tensor":"opt.v.norm_f.weight"' || fail "--verify --json names no tensor"
expect 1 "$bitbyte" info --verify "$(checkpoint bad 30)"
expect 1 "$bitbyte" info --verify missing
complains "missing"

# Those who only read a model take the newest that is good, and say so; of the damaged file itself, only its damaged part matters.
expect 0 "$bitbyte" generate bad --max_new_bytes 5 --temperature 0 --device "$device"
flip "$(checkpoint bad 30)" 1
weights=$((8 + $(od -An -tu8 -N 8 "$(checkpoint bad 30)"))) # where the first tensor begins
flip "$(checkpoint bad 30)" $(($(wc -c <"$(checkpoint bad 30)") - weights - 100))
expect 0 "$bitbyte" eval bad text.txt --json --device "$device"
case $(json_value out model) in *step-00000015*) ;; *) fail "eval took $(json_value out model)" ;; esac
[ "$(grep -c "note: damaged checkpoint" err)" = 3 ] || fail "eval does not report the three damaged checkpoints"
expect 1 "$bitbyte" eval "$(checkpoint bad 30)" text.txt --device "$device"
complains "is damaged"

# A resumed run goes on from there, and ends where an undamaged one does; what was damaged is put aside.
expect 0 "$bitbyte" train --resume bad
[ "$(grep -c "note: damaged checkpoint" out)" = 3 ] || fail "resume does not say what it passes over"
says "resumes  bad/step-00000015.safetensors"
cmp "$(checkpoint good 30)" "$(checkpoint bad 30)" || fail "a run resumed from before the damage differs"
[ "$(find bad -name '*.safetensors.damaged' | wc -l)" = 3 ] || fail "damaged checkpoints are not put aside"
expect 0 "$bitbyte" info --verify bad
[ "$(grep -c ': good, ' out)" = 6 ] || fail "the run directory is not whole again"
[ "$(cat bad/latest)" = step-00000030.safetensors ] || fail "latest"

# None left: an error that says so, and nothing is lost by starting afresh.
cp -r good lost
for file in lost/step-*; do truncate -s 1000 "$file"; done
expect 1 "$bitbyte" train --resume lost
complains "every checkpoint is damaged"
expect 1 "$bitbyte" generate lost --device "$device"
complains "every checkpoint is damaged"
[ "$(find lost -name 'step-*.safetensors' | wc -l)" = 6 ] || fail "a failed resume changed the directory"

# A file without checksums, as other programs write it, is as good as ever.
cp "$(checkpoint good 30)" foreign.safetensors
sed -i 's/tensor_xxh3/other_sums_/' foreign.safetensors
expect 0 "$bitbyte" info --verify foreign.safetensors
says "no checksums"
expect 0 "$bitbyte" generate foreign.safetensors --max_new_bytes 5 --device "$device"

# Kept for ever.
expect 0 "$bitbyte" train --data text.txt --out kept "${tiny[@]}" --steps 12 --save_every 2 --keep 2 --keep_every 4 --save_sync
[ "$(cd kept && echo step-*)" = "step-00000004.safetensors step-00000008.safetensors step-00000010.safetensors step-00000012.safetensors" ] ||
    fail "--keep 2 --keep_every 4 leaves $(ls kept)"
echo "passed"
