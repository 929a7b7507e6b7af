#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What HTTP costs: serve.py PROGRAM MODEL [BYTES]. Sixteen streams of `bitbyte serve` beside the same sixteen texts of
`bitbyte generate --prompts`, which has the same batch engine without a server; how long a seventeenth text waits for its first byte; and, where there
is wrk (Debian's package), how many small requests a second are answered.
Processor time is told too, since a machine that has other work to do makes wall times long."""
import concurrent.futures
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

program, model, count = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 400
STREAMS, PROBES = 16, 20
WRK_SECONDS = 5
# Each request has another seed, so that none is answered from what another one left.
WRK_SCRIPT = """local seed = 0
function request()
    seed = seed + 1
    return wrk.format("POST", "/v1/completions", nil, '{"prompt": "The ", "max_tokens": 32, "seed": ' .. seed .. '}')
end
"""


def generate(length):
    """Seconds of processor time and of the clock, to write `length` bytes of each text."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as prompts:
        for i in range(STREAMS):
            prompts.write(json.dumps({"prompt": "The ", "seed": i}) + "\n")
        prompts.flush()
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([program, "generate", model, "--prompts", prompts.name, "--parallel", str(STREAMS), "--temperature", "1", "--max_new_bytes", str(length)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begin


class Server:
    def __init__(self):
        self.process = subprocess.Popen([program, "serve", model, "--port", "0", "--quiet", "--sequences", str(STREAMS + 1)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def processor_time(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stream(self, length, seed, first_only=False, begun=None):
        """Seconds until the first byte of the text."""
        body = json.dumps({"prompt": "The ", "max_tokens": length, "seed": seed, "stream": True}).encode()
        begin, first, data = time.monotonic(), None, b""
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            while part := s.recv(65536):
                data += part
                if first is None and b"data: " in data:
                    first = time.monotonic() - begin
                    if begun:
                        begun.wait(600)
                    if first_only:
                        break
        return first


def wrk(port, path, script=None):
    """Requests a second over 32 connections, the time that 99% of them take at most, and how many failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(script or "")
        f.flush()
        told = subprocess.run(["wrk", "-t1", "-c32", f"-d{WRK_SECONDS}s", "--timeout", "60s", "--latency", *(["-s", f.name] if script else []), f"http://127.0.0.1:{port}{path}"],
                              check=True, capture_output=True, text=True).stdout
    failed = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)|(?:connect|read|write|timeout) (\d+)", told) for n in n if n)
    return {"requests_per_s": float(re.search(r"Requests/sec: *([\d.]+)", told)[1]), "p99": re.search(r"99% *(\S+)", told)[1], "failed": failed}


server = Server()
with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
    before, begin = server.processor_time(), time.monotonic()
    list(pool.map(lambda i: server.stream(count, i), range(STREAMS)))
    served = server.processor_time() - before, time.monotonic() - begin
    barrier = threading.Barrier(STREAMS + 1)
    streams = [pool.submit(server.stream, 60000, i, True, barrier) for i in range(STREAMS)]
    waits = []
    # the streams go on while the probes ask: nobody reads them, and bytes are kept until somebody does
    while barrier.n_waiting < STREAMS:
        time.sleep(0.01)
    for i in range(PROBES):
        waits.append(server.stream(1, 100 + i, True))
    barrier.wait()
small = {"health": wrk(server.port, "/health"), "32_bytes": wrk(server.port, "/", WRK_SCRIPT)} if shutil.which("wrk") else None
server.process.terminate()
server.process.wait()
short, long = generate(1), generate(count + 1)
alone = long[0] - short[0], long[1] - short[1]
total = STREAMS * count
print(json.dumps({"streams": STREAMS, "bytes": total, "served_bytes_per_s": round(total / served[1], 1), "engine_bytes_per_s": round(total / alone[1], 1),
                  "served_processor_s": round(served[0], 2), "engine_processor_s": round(alone[0], 2), "processor_ratio": round(alone[0] / served[0], 3),
                  "first_byte_ms": {"median": round(1e3 * statistics.median(waits), 1), "max": round(1e3 * max(waits), 1)}, "wrk": small}, indent=2))
