#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: link_delay.py MICROSECONDS PID...
A switch with a delay: gives the network namespace of each process PID an interface eth0 (a tap device, MTU 64000), and forwards
every frame to the others after MICROSECONDS. For kernels without netem. Prints a line when it is ready."""
import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def tap_in(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    there, here = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), os.open("/proc/self/ns/net", os.O_RDONLY)
    if libc.setns(there, 0) != 0:
        raise OSError(ctypes.get_errno(), f"setns to the network of {pid}")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", "eth0", "mtu", "64000"], check=True)
    libc.setns(here, 0)
    return tap


def main():
    delay = float(sys.argv[1]) * 1e-6
    taps = [tap_in(pid) for pid in sys.argv[2:]]
    # The timer slack of 50 us would count.
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
    port_of, queue = {}, collections.deque()  # one delay: first in, first out
    print("ready", flush=True)
    while True:
        wait = None if not queue else max(0.0, queue[0][0] - time.monotonic())
        ready, _, _ = select.select(taps, [], [], wait)
        now = time.monotonic()
        for tap in ready:
            for _ in range(16):
                try:
                    frame = os.read(tap, 65600)
                except BlockingIOError:
                    break
                except OSError:  # not up yet
                    break
                port_of[frame[6:12]] = tap
                queue.append((now + delay, tap, frame))
        while queue and queue[0][0] <= time.monotonic():
            _, source, frame = queue.popleft()
            to = port_of.get(frame[:6])
            for tap in [to] if to is not None else taps:
                if tap != source:
                    try:
                        os.write(tap, frame)
                    except OSError:  # its queue is full, or it is down: a frame is lost, as on a wire
                        pass


main()
