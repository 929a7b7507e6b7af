# SPDX-License-Identifier: MIT
"""Load on `bitbyte serve`: serve_load.py PROGRAM MODEL SECONDS, for `make load`. 64 clients at once do what clients do: read streams, leave them,
read a few bytes a time, send half a request, too much, or nonsense, several requests in one write. Every answer must be the one that
the same request gets alone; the process must not grow, nor keep a connection or a text."""
import collections
import json
import os
import random
import re
import socket
import statistics
import sys
import threading
import time

from serve_client import Server, whole_text

CLIENTS, TEXTS = 64, 24
seconds = float(sys.argv[3])
server = Server("--sequences", 16, "--queue", 200, "--max_body_kb", 64, "--quiet", "--timeout", 300, model=sys.argv[2])
counts, failures, lock = collections.Counter(), [], threading.Lock()
end = time.monotonic() + seconds


def body_of(i, stream):
    return {"prompt": "The %d" % (i % 7), "max_tokens": 20 + 37 * (i % 9), "seed": i, "temperature": 0.5 + 0.1 * (i % 5), "stream": stream}


expected = [server.complete(**body_of(i, False))["text"] for i in range(TEXTS)]


def request(body, more=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {len(data)}\r\n\r\n".encode() + data


def connect():
    s = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    return s


def read_all(s, piece=65536, pause=0.0):
    answer = b""
    while part := s.recv(piece):
        answer += part
        if pause:
            time.sleep(pause)
    return answer


def text_of(answer):
    """Of a whole answer, or of a stream."""
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
    head, data = answer.split(b"\r\n\r\n", 1)
    if b"chunked" not in head:
        return json.loads(data)["choices"][0]["text"]
    events = b"".join(re.findall(rb"(?:^|\r\n)[0-9a-f]+\r\n(.*?)(?=\r\n)", data, re.S | re.I)).decode()
    assert events.endswith("data: [DONE]\n\n"), events[-80:]
    return whole_text([json.loads(e.removeprefix("data: ")) for e in events.split("\n\n")[:-2]])


def ask(pick, s, stream, more="Connection: close\r\n"):
    i = pick.randrange(TEXTS)
    s.sendall(request(body_of(i, stream), more))
    return i


def read_stream(pick, s):
    i = ask(pick, s, True)
    assert text_of(read_all(s)) == expected[i]


def read_whole(pick, s):
    i = ask(pick, s, False)
    assert text_of(read_all(s)) == expected[i]


def half_closed(pick, s):
    i = ask(pick, s, pick.random() < 0.5)
    time.sleep(pick.choice([0, 0.001, 0.01, 0.1]))
    s.shutdown(socket.SHUT_WR)
    assert text_of(read_all(s)) == expected[i]


def leave(pick, s):
    s.sendall(request({"prompt": "The ", "max_tokens": 5000, "stream": pick.random() < 0.7}))
    s.settimeout(0.5)
    try:
        for _ in range(pick.randrange(6)):
            s.recv(pick.randrange(1, 2000))
    except TimeoutError:
        pass


def read_slowly(pick, s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    i = ask(pick, s, True)
    if pick.random() < 0.3:  # a byte a second, and then no more
        for _ in range(5):
            s.recv(1)
            time.sleep(1)
    else:
        assert text_of(read_all(s, 500, 0.01)) == expected[i]


def half_open(pick, s):
    whole = request(body_of(0, True))
    s.sendall(whole[: pick.randrange(len(whole))])
    time.sleep(pick.uniform(0, 8))


def too_much(pick, s):
    try:
        s.sendall(request(b'{"prompt": "' + b"a" * (70000 + pick.randrange(200000)) + b'"}'))
        answer = read_all(s, 4096) if pick.random() < 0.5 else s.recv(4096)
    except (ConnectionResetError, BrokenPipeError):
        return
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413"), answer[:100]


def nonsense(pick, s):
    data = bytearray(request(body_of(0, False), "Connection: close\r\n"))
    for _ in range(pick.randrange(1, 20)):
        data[pick.randrange(len(data))] = pick.randrange(256)
    try:
        s.sendall(pick.randbytes(pick.randrange(1, 3000)) if pick.random() < 0.3 else data)
        s.shutdown(socket.SHUT_WR)
        answer = read_all(s)
    except (ConnectionResetError, BrokenPipeError, OSError):
        return
    assert answer == b"" or re.match(rb"HTTP/1\.[01] \d\d\d ", answer), answer[:100]


def pipelined(pick, s):
    order = [pick.randrange(TEXTS) for _ in range(3)]
    s.sendall(b"".join(request(body_of(i, False), "Connection: close\r\n" if n == 2 else "") for n, i in enumerate(order)))
    answer = read_all(s)
    texts = [json.loads(part[: part.rindex(b"}") + 1])["choices"][0]["text"] for part in re.split(rb"HTTP/1\.1 200.*?\r\n\r\n", answer, flags=re.S)[1:]]
    assert texts == [expected[i] for i in order]


def smuggled(pick, s):
    """A body whose end is said twice, or as only some read it, with a request hidden in it: that is refused, and nothing else is taken. Where the
    library itself refuses, 0.9.75 writes the answer's head twice."""
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    size = 5 + len(hidden)
    framing = pick.choice([f"Content-Length: {size}\r\nTransfer-Encoding: chunked", f"Transfer-Encoding: chunked\r\nContent-Length: {size}", f"Content-Length: {size}\r\nContent-Length: 5",
                           f"Content-Length: 5\r\nContent-Length: {size}", "Transfer-Encoding: xchunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
                           f"Content-Length: +{size}", f"Content-Length: 0x{size:x}", "Transfer-Encoding : chunked", f"Content-Length: {size}, {size}"])
    whole = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode() + b"0\r\n\r\n" + hidden
    cut = pick.randrange(len(whole))
    try:
        s.sendall(whole[:cut])
        time.sleep(pick.choice([0, 0.01]))
        s.sendall(whole[cut:])
        s.shutdown(socket.SHUT_WR)
        answer = read_all(s)
    except (ConnectionResetError, BrokenPipeError, OSError):
        return
    assert answer == b"" or (answer.startswith(b"HTTP/1") and set(re.findall(rb"HTTP/1\.[01] (\d\d\d) ", answer)) == {b"400"} and b'"ok"' not in answer), (framing, answer[:400])


KINDS = {read_stream: 8, read_whole: 4, half_closed: 2, leave: 6, read_slowly: 2, half_open: 2, too_much: 1, nonsense: 3, pipelined: 2, smuggled: 2}


def client(number):
    pick = random.Random(number)
    while time.monotonic() < end:
        kind = pick.choices(list(KINDS), list(KINDS.values()))[0]
        try:
            with connect() as s:
                kind(pick, s)
        except Exception as error:  # noqa: BLE001: of any kind, it is told and counted
            with lock:
                failures.append(f"{kind.__name__}: {type(error).__name__}: {str(error)[:300]}")
        with lock:
            counts[kind.__name__] += 1


def state():
    with open(f"/proc/{server.process.pid}/statm") as f:
        resident = int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    return resident, len(os.listdir(f"/proc/{server.process.pid}/fd"))


_, open_before = state()
threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
for thread in threads:
    thread.start()
resident, told = [], time.monotonic()
while any(thread.is_alive() for thread in threads):
    time.sleep(0.5)
    assert server.process.poll() is None, "the server ended: " + open("server.log").read()[-2000:]
    resident.append(state()[0])
    if time.monotonic() - told > 30:
        told = time.monotonic()
        print(f"{sum(counts.values())} requests, {len(failures)} failed, {resident[-1]:.1f} MB, {state()[1]} descriptors", flush=True)
for thread in threads:
    thread.join()
server.wait_for("llamacpp:requests_processing", 0)
server.wait_for("llamacpp:requests_deferred", 0)
for _ in range(700):  # half a request is closed after a minute
    if state()[1] <= open_before + 1:
        break
    time.sleep(0.1)
quarter = len(resident) // 4
early, late = statistics.median(resident[quarter : 2 * quarter]), statistics.median(resident[-quarter:])
print(f"{sum(counts.values())} requests in {seconds:g} s: {dict(counts)}")
print(f"resident: {early:.1f} MB in the second quarter of the time, {late:.1f} MB in the last, {max(resident):.1f} MB at most; {state()[1]} descriptors, {open_before} before")
print(f"cancelled: {server.metric('bitbyte:requests_cancelled_total'):g}, refused: {server.metric('bitbyte:requests_rejected_total'):g}, "
      f"model failures: {server.metric('bitbyte:batch_failures_total'):g}")
for failure in failures[:20]:
    print("FAILED:", failure)
assert not failures, f"{len(failures)} requests failed"
assert late <= 1.03 * early + 2, "the process grows"
assert state()[1] <= open_before + 1, "descriptors are left open"
assert server.complete(**body_of(3, False))["text"] == expected[3]
server.end()
