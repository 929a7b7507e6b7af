# SPDX-License-Identifier: MIT
# Sourced by tests that need several hosts on one machine. A host is a set of Linux namespaces: network, host name, processes, mounts,
# shared memory. Hosts are connected to one switch, a bridge in its own network namespace. Nothing is visible outside, and everything
# disappears with the shell that created it, however that ends.
# shellcheck shell=bash disable=SC2016 # the shell on the host expands what is in single quotes
declare -A host_holder=() host_pid=()
hosts_dir=
hosts_agent= # what mpirun starts the other hosts with

# hosts_possible: whether this machine and this user can; says why not.
hosts_possible() {
    local tool
    for tool in unshare nsenter setpriv pgrep ip; do
        command -v "$tool" >/dev/null || { echo "no $tool"; return 1; }
    done
    unshare --fork --pid --mount-proc --net --uts --ipc true 2>/dev/null || { echo "no right to make namespaces"; return 1; }
    unshare --net sh -c 'ip link add name s type bridge && ip link add name left type veth peer name right' 2>/dev/null ||
        { echo "this kernel makes no bridges, or no veth"; return 1; }
}

# hosts_hold NAME OPTIONS…: a process in namespaces of its own, that ends with this shell, and with it what runs in its --pid.
hosts_hold() {
    local tries
    setpriv --pdeathsig KILL unshare "${@:2}" --net sh -c 'ip link set lo up && : >"$0" && exec sleep infinity' "$hosts_dir/$1.up" \
        >/dev/null 2>&1 </dev/null &
    host_holder[$1]=$!
    for ((tries = 0; tries < 200; tries++)); do
        if [ -e "$hosts_dir/$1.up" ]; then
            case " $* " in *" --fork "*) host_pid[$1]=$(pgrep -P "${host_holder[$1]}") ;; *) host_pid[$1]=${host_holder[$1]} ;; esac
            return
        fi
        sleep 0.05
    done
    echo "host $1 does not start" >&2
    return 1
}

# hosts_open DIR NAME…: hosts at 10.77.0.1, 2, …; DIR is an empty folder, for what their launcher needs. It runs on the first, which
# shares this shell's processes, as it must see the others'.
hosts_open() {
    local name number=0 options
    hosts_dir=$1
    hosts_hold switch || return 1
    nsenter -t "${host_pid[switch]}" --net sh -c 'ip link add name s type bridge && ip link set s up' || return 1
    for name in "${@:2}"; do
        number=$((number + 1))
        options=(--uts --ipc --mount)
        [ $number = 1 ] || options+=(--fork --pid --kill-child --mount-proc)
        hosts_hold "$name" "${options[@]}" || return 1
        host_run "$name" hostname "$name" || return 1
        echo "${host_pid[$name]}" >"$hosts_dir/$name.pid"
        echo "10.77.0.$number" >"$hosts_dir/$name.address"
        [ $number -gt 1 ] || cp "$hosts_dir/$name.pid" "$hosts_dir/first.pid"
        nsenter -t "${host_pid[switch]}" --net ip link add name "$name" type veth peer name eth0 netns "${host_pid[$name]}" &&
            nsenter -t "${host_pid[switch]}" --net ip link set "$name" master s up &&
            host_run "$name" sh -c "ip addr add 10.77.0.$number/24 dev eth0 && ip link set eth0 up" || return 1
    done
    # What ssh is elsewhere: agent HOST COMMAND…
    cat >"$hosts_dir/agent" <<'AGENT'
#!/bin/sh
pid=$(cat "${0%/*}/$1.pid") || exit 1
shift
exec env -i PATH="$PATH" HOME="$HOME" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    nsenter -t "$pid" --all sh -c "cd '$PWD' && $*"
AGENT
    # The same under the name ssh, with what ServerAliveInterval does: a host that is there refuses a connection to a port without a
    # server at once; one that is cut off does not answer.
    mkdir "$hosts_dir/bin"
    cat >"$hosts_dir/bin/ssh" <<'SSH'
#!/usr/bin/env bash
dir=$(dirname "$(dirname "$0")") interval=0 most=3 missed=0
while [ "$1" = -o ]; do
    case $2 in ServerAliveInterval=*) interval=${2#*=} ;; ServerAliveCountMax=*) most=${2#*=} ;; esac
    shift 2
done
"$dir/agent" "$@" &
session=$!
while [ "$interval" -gt 0 ]; do
    begin=$SECONDS
    timeout "$interval" bash -c ": </dev/tcp/$(cat "$dir/$1.address")/9" 2>/dev/null
    if [ $? = 124 ]; then missed=$((missed + 1)); else missed=0; fi
    if [ $missed -ge "$most" ]; then kill -KILL $session; exit 255; fi
    # Nothing is heard of a session's end on a host that does not answer.
    if [ $missed = 0 ] && ! kill -0 $session; then break; fi
    while [ $((SECONDS - begin)) -lt "$interval" ] && { [ $missed -gt 0 ] || kill -0 $session; }; do sleep 0.2; done
done 2>/dev/null
wait $session
SSH
    chmod +x "$hosts_dir/agent" "$hosts_dir/bin/ssh"
    hosts_agent=$hosts_dir/agent
}

# host_run NAME COMMAND…: there, in the present folder as that host sees it.
host_run() { nsenter -t "${host_pid[$1]}" --all sh -c 'cd "$0" && exec "$@"' "$PWD" "${@:2}"; }

# host_cut NAME: its cable is pulled, behind the switch: whatever is sent gets lost, and nobody is told. host_join puts it back.
host_cut() { nsenter -t "${host_pid[switch]}" --net ip link set "$1" nomaster; }
host_join() { nsenter -t "${host_pid[switch]}" --net ip link set "$1" master s; }

# hosts_mpirun ARGUMENTS…: mpirun on the first host. It ends with this shell.
hosts_mpirun() {
    local command=(setpriv --pdeathsig KILL nsenter -t "$(cat "$hosts_dir/first.pid")" --net --uts --ipc --mount
        sh -c 'cd "$0" && exec mpirun "$@"' "$PWD" --mca plm_rsh_agent "$hosts_agent" --mca orte_tmpdir_base "$hosts_dir" "$@")
    [ "$BASH_SUBSHELL" = 0 ] || exec "${command[@]}" # in the background: then it is that shell's child
    "${command[@]}"
}

hosts_close() {
    local name
    for name in "${!host_holder[@]}"; do kill -KILL "${host_holder[$name]}" 2>/dev/null; done
    for name in "${!host_holder[@]}"; do wait "${host_holder[$name]}" 2>/dev/null; done
    host_holder=() host_pid=()
}
