#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The exchange between processes (test_dist.c) as 1, 2, 3 and 4 ranks.
set -u
test=$2/tests/test_dist
command -v mpirun >/dev/null || { echo "skipped: no mpirun"; exit 77; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export ASAN_OPTIONS=detect_leaks=0 # Open MPI keeps what it allocated
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$test" mpi >"$log" 2>&1
status=$?
[ $status = 77 ] && { echo "skipped: this build is without MPI"; exit 77; }
for count in 1 2 3 4; do
    timeout 60 mpirun -q --oversubscribe --bind-to none -np $count "$test" mpi >"$log" 2>&1 || { cat "$log"; echo "FAILED: $count ranks"; exit 1; }
done
echo "passed as 1, 2, 3 and 4 ranks"
