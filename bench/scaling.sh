#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: bench/scaling.sh [LINK...] >>bench/scaling.jsonl
# Times training steps on 1 to 4 ranks, each on a separate host (a set of namespaces, tests/hosts.sh), over links of a given rate and
# delay; prints a line of JSON for each. Without arguments: all links. Needs root, an MPI, python3. The model is fitted by
# bench/scaling_model.py; see docs/SCALING.md.
#
# LINK is alone (no network: one process, or several on one host), or RATE:MICROSECONDS, such as 10gbit:100: tc's tbf at each host's end,
# and a switch that forwards frames after the delay (link_delay.py: not every kernel has netem). 0:0 is the unlimited virtual link.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bitbyte=${BITBYTE:-$top/build/bitbyte}
# shellcheck source=tests/hosts.sh
. "$top/tests/hosts.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
tmp=$(mktemp -d)
relay=
cleanup() {
    [ -z "$relay" ] || kill -KILL "$relay" 2>/dev/null
    hosts_close 2>/dev/null
    rm -rf "$tmp"
}
trap cleanup EXIT
cd "$tmp" || exit 1
head -c 4000000 /dev/urandom >data
[ $# -gt 0 ] || set -- alone 0:0 1gbit:100 1gbit:1000 10gbit:100 10gbit:1000

# shellcheck disable=SC2034 # by name
# Many parameters and little to compute, so that ranks which share processors still wait for the network.
shape_A=(--n_layer 4 --d_model 512 --n_head 8 --d_ff 1408 --seq_len 64 --batch_size 1)
shape_B=(--n_layer 6 --d_model 384 --n_head 6 --d_ff 1024 --seq_len 128 --batch_size 2)

# point RANKS SHAPE MICROS ZERO: MICROS batches a rank and step
point() {
    local shape="shape_$2[@]" batch=1 launch=() more=()
    [ "$2" = A ] || batch=2
    if [ "$1" -gt 1 ]; then
        if [ "$link" = alone ]; then
            launch=(mpirun -q --oversubscribe --bind-to none -np "$1")
        else
            launch=(hosts_mpirun -q --oversubscribe --bind-to none --mca btl_tcp_if_include eth0 -np "$1"
                --host "$(printf ',host%s' $(seq "$1") | cut -c2-)")
        fi
        more=(--ddp --zero "$4")
    fi
    "${launch[@]}" "$bitbyte" train "${more[@]}" --data "$tmp/data" "${!shape}" --global_batch $(($1 * $3 * batch)) --steps 9 --save_every 0 \
        --threads 1 --log_every 1 --lr 1e-4 --allow_overwrite --out "$tmp/run" --json 2>err </dev/null | python3 -c '
import json, statistics, sys
link, ranks, shape, micros, zero, rtt, gbit = sys.argv[1:]
steps = [e for e in map(json.loads, sys.stdin) if e["event"] == "step"]
if len(steps) < 9:
    sys.exit("no steps: " + " ".join(sys.argv[1:]) + open("err").read())
times = [b["elapsed_s"] - a["elapsed_s"] for a, b in zip(steps[1:], steps[2:])]
print(json.dumps({"link": link, "ranks": int(ranks), "shape": shape, "micros": int(micros), "zero": int(zero), "rtt_us": float(rtt),
                  "gbit": float(gbit), "step_s": round(statistics.median(times), 5), "least_s": round(min(times), 5),
                  "wait_share": round(statistics.median(e["wait_share"] for e in steps[2:]), 3)}), flush=True)
' "$link" "$1" "$2" "$3" "$4" "$rtt" "$gbit"
    rm -rf "$tmp/run"
}

# probe: what one TCP connection between two hosts sees: the round trip in microseconds, and Gbit/s
cat >probe.py <<'EOP'
import socket, statistics, sys, time
SIZE = 200 << 20
if sys.argv[1] == "serve":
    s = socket.socket()
    s.bind(("", 5000))
    s.listen(2)
    c, _ = s.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(100):
        c.sendall(c.recv(1))
    n = 0
    while n < SIZE:
        n += len(c.recv(1 << 20))
    c.sendall(b"x")
else:
    s = socket.create_connection(("10.77.0.1", 5000), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    trips = []
    for _ in range(100):
        t = time.time()
        s.sendall(b"x")
        s.recv(1)
        trips.append(time.time() - t)
    t, block = time.time(), bytes(1 << 20)
    for _ in range(SIZE >> 20):
        s.sendall(block)
    s.recv(1)
    print(round(statistics.median(trips) * 1e6, 1), round(SIZE * 8e-9 / (time.time() - t), 3))
EOP

# connect RATE MICROSECONDS: four hosts
connect() {
    local number
    rm -rf hosts ready
    mkdir hosts
    hosts_open "$tmp/hosts" host1 host2 host3 host4 || exit 1
    if [ "$2" != 0 ]; then
        for number in 1 2 3 4; do host_run host$number ip link del eth0; done
        setpriv --pdeathsig KILL "$top/bench/link_delay.py" "$2" "${host_pid[host1]}" "${host_pid[host2]}" "${host_pid[host3]}" \
            "${host_pid[host4]}" >ready &
        relay=$!
        until grep -q ready ready 2>/dev/null; do sleep 0.05; done
        for number in 1 2 3 4; do
            host_run host$number sh -c "ip addr add 10.77.0.$number/24 dev eth0 && ip link set eth0 up"
        done
    fi
    [ "$1" = 0 ] || for number in 1 2 3 4; do
        host_run host$number tc qdisc add dev eth0 root tbf rate "$1" burst 256k latency 50ms || exit 1
    done
    host_run host1 python3 "$tmp/probe.py" serve &
    sleep 0.3
    read -r rtt gbit <<<"$(host_run host2 python3 "$tmp/probe.py" send)"
}

for link; do
    rtt=0 gbit=0
    if [ "$link" = alone ]; then
        for micros in 1 2 4; do point 1 A $micros 0; done
        for micros in 1 2; do point 1 B $micros 0; done
        for ranks in 2 4; do point $ranks A 1 0; done
        continue
    fi
    connect "${link%:*}" "${link#*:}"
    for ranks in 2 3 4; do
        point $ranks A 1 0
        point $ranks A 1 1
    done
    point 2 A 4 0
    point 4 B 1 0
    hosts_close 2>/dev/null
    [ -z "$relay" ] || kill -KILL "$relay" 2>/dev/null
    relay=
    wait 2>/dev/null
done
