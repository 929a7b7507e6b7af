# SPDX-License-Identifier: MIT
# Sourced by the checks on cards: lines of a table, each with a time limit, all together within LIMIT seconds.
# shellcheck shell=bash disable=SC2034,SC2154
LIMIT=480
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0 number=0
export logs

# check SECONDS WHAT COMMAND…: one line; what the command wrote is shown when it fails, and is in $log. 77: skipped.
check() {
    local limit=$1 what=$2 begin=$SECONDS status word
    shift 2
    log=$logs/$((++number))
    if [ $((SECONDS + limit)) -gt $LIMIT ]; then limit=$((LIMIT - SECONDS)); fi
    if [ "$limit" -lt 1 ]; then
        printf '%-52s %s\n' "$what" "no time left"
        failed=1
        return
    fi
    timeout -k 1 "$limit" bash -c '"$@"' check "$@" >"$log" 2>&1
    status=$?
    case $status in
        0) word=ok ;;
        77) word=skipped ;;
        124 | 137) word="TOO LONG" failed=1 ;;
        *) word=FAILED failed=1 ;;
    esac
    printf '%-52s %-9s %4d s\n' "$what" "$word" $((SECONDS - begin))
    if [ "$word" = FAILED ]; then tail -n 20 "$log" | sed 's/^/    /'; fi
}

needs_card() {
    if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
        echo "$1: no card: nvidia-smi is missing or lists none. What runs without one: ctest -L cuda" >&2
        exit 1
    fi
    nvidia-smi -L
}

# A new build is for these cards alone: one for all that are shipped takes minutes.
# shellcheck disable=SC2317
build_it() {
    local options=()
    [ -f "$build/CMakeCache.txt" ] || options=(-DBB_CUDA_ARCHITECTURES=native)
    cmake -S . -B "$build" -DBB_CUDA=on "${options[@]}" && cmake --build "$build" -j "$(nproc)" --target "$@"
}
export -f build_it
