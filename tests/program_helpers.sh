# SPDX-License-Identifier: MIT
# Sourced by the tests that run the program: $bitbyte, a temporary working directory, and checks.
# shellcheck shell=bash
bitbyte=$(realpath "$1")
device=${BB_TEST_DEVICE:-cpu}
# Models this small are all waiting: threads must not spin on the cores of other tests.
export OMP_WAIT_POLICY=passive
tmp=$(mktemp -d)
cleanup() {
    [ "$BASHPID" = "$$" ] || return # a child that was killed before it became another program
    trap - EXIT
    for mounted in "$tmp"/*/; do mountpoint -q "$mounted" && umount "$mounted"; done
    rm -rf "$tmp"
}
trap cleanup EXIT
cd "$tmp" || exit 1

# Before a program is begun in the background whose output wait_for looks at: what the one before it wrote is not to be found there.
begin_output() { rm -f out err; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    [ -f "$tmp/out" ] && tail -c 2000 "$tmp/out" >&2
    [ -f "$tmp/err" ] && tail -c 4000 "$tmp/err" >&2
    exit 1
}
# expect STATUS COMMAND…: standard output in out, standard error in err.
expect() {
    local want=$1 got=0
    shift
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    [ "$got" = "$want" ] || fail "exit status $got instead of $want: $*"
}
says() { grep -qF -- "$1" "$tmp/out" || fail "standard output does not say: $1"; }
complains() { grep -qF -- "$1" "$tmp/err" || fail "standard error does not say: $1"; }
# needs_mpi: skips the test without MPI in the build or its mpirun; from here on mpirun may be called.
needs_mpi() {
    "$bitbyte" train --ddp --data missing >out 2>err
    if grep -qF "without MPI" err; then echo "skipped: this build is without MPI"; exit 77; fi
    command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export ASAN_OPTIONS=detect_leaks=0 # Open MPI keeps what it allocated
}
# ranks_of NAME: the processes of the job that was started with --out "$tmp/NAME": a whole path, as tests run side by side; rank_of NAME K: the one of its rank K
ranks_of() { pgrep -f -- "--out $tmp/$1( |\$)"; }
rank_of() {
    local pid
    for pid in $(ranks_of "$1"); do
        grep -qzx "OMPI_COMM_WORLD_RANK=$2" "/proc/$pid/environ" 2>/dev/null && echo "$pid" && return
    done
    fail "$1: no process of rank $2"
}
# json_value FILE NAME: that value of one JSON object; fails when it is none. perl and JSON::PP come with build-essential.
json_value() {
    perl -MJSON::PP -e 'local $/; my $j = decode_json(<STDIN>); exists $j->{$ARGV[0]} or die "no $ARGV[0]\n"; my $v = $j->{$ARGV[0]};
        print ref $v && !JSON::PP::is_bool($v) ? encode_json($v) : $v, "\n"' "$2" <"$1" || fail "$1 is no JSON object with $2"
}
# json_lines FILE: every line is a JSON object; prints the `event` of each.
json_lines() { perl -MJSON::PP -ne 'print decode_json($_)->{event}, "\n"' "$1" || fail "$1 has a line that is no JSON object"; }
# wait_until WHAT COMMAND…: until the command succeeds. Minutes at most, as a busy machine may need; what is broken is waited for as long.
wait_until() {
    local tries what=$1
    shift
    for ((tries = 0; tries < 4000; tries++)); do
        "$@" 2>/dev/null && return
        sleep 0.05
    done
    fail "not in minutes: $what"
}
# wait_for FILE TEXT: until the text stands in the file.
wait_for() { wait_until "$1 says: $2" grep -qaF -- "$2" "$1"; }

# A text and the smallest model that has every part.
for ((i = 0; i < 200; i++)); do printf 'The %dth line says that %d and %d are not the same.\n' "$i" $((i * 7)) $((i * 7 + 1)); done >text.txt
tiny=(--n_layer 2 --d_model 32 --n_head 2 --d_ff 48 --seq_len 32 --batch_size 2 --grad_accum 1 --threads 1 --device "$device")
