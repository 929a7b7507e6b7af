# SPDX-License-Identifier: MIT
"""Clients of `bitbyte serve`: serve_checks.py PROGRAM, in a folder with model.safetensors and other.safetensors. Run by test_serve.sh."""
import base64
import concurrent.futures
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

from serve_client import Server, program, whole_text


def check_answers(s):
    """The forms of OpenAI's answers, and that they say what `generate` writes."""
    expected = subprocess.run([program, "generate", "model.safetensors", "--prompt", "The 1", "--max_new_bytes", "120", "--seed", "7", "--temperature",
                               "0.7", "--top_k", "40", "--top_p", "0.9", "--json", "--threads", "1"], capture_output=True, check=True)
    expected = json.loads(expected.stdout)["samples"][0]["text"]
    same = {"prompt": "The 1", "max_tokens": 120, "seed": 7, "temperature": 0.7, "top_k": 40, "top_p": 0.9}
    whole = s.post("/v1/completions", model="any", **same)
    assert whole["choices"][0]["text"] == expected, (whole["choices"][0]["text"], expected)
    assert whole["object"] == "text_completion" and whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": 120, "total_tokens": 125}, whole["usage"]
    events = s.events("/v1/completions", **same, stream_options={"include_usage": True})
    assert whole_text(events) == expected and events[-1]["usage"] == whole["usage"] and events[-2]["choices"][0]["finish_reason"] == "length"
    stops = [expected[60:64], expected[80:83]]
    stopped = s.complete(**same, stop=stops)
    cut = min(expected.find(stop) for stop in stops)
    assert stopped["text"] == expected[:cut] and stopped["finish_reason"] == "stop", stopped
    assert whole_text(s.events("/v1/completions", **same, stop=stops)) == expected[:cut]
    many = s.post("/v1/completions", **{**same, "prompt": ["The 1", list(b"The 2")]}, n=2, echo=True)["choices"]
    assert [c["index"] for c in many] == [0, 1, 2, 3] and many[0]["text"] == "The 1" + expected and many[2]["text"].startswith("The 2")
    assert many[1]["text"] == "The 1" + s.complete(**{**same, "seed": 8})["text"] != many[0]["text"]
    parts = s.events("/v1/completions", **{**same, "prompt": ["The 1", list(b"The 2")]}, n=2, echo=True)
    for c in many:
        assert "".join(p["text"] for e in parts for p in e["choices"] if p["index"] == c["index"]) == c["text"]
    # logprobs: of the bytes themselves, the likeliest first; with echo those of the prompt too, as /v1/score says; not to the last
    # digit, because a prompt is read in larger pieces
    told = s.complete(**same, logprobs=3, echo=True)["logprobs"]
    assert len(told["tokens"]) == 125 and told["token_logprobs"][0] is None and all(len(t) == 3 for t in told["top_logprobs"][1:])
    assert all(max(t.values()) == list(t.values())[0] <= 0 for t in told["top_logprobs"][1:])
    score = s.post("/v1/score", input="The 1" + expected, top=2)["data"][0]
    bits = [None if p is None else -p / math.log(2) for p in told["token_logprobs"]]
    assert score["bits"][0] is None and all(abs(a - b) < 0.1 for a, b in zip(score["bits"][1:], bits[1:])), "score and logprobs differ"
    assert abs(score["bits_per_byte"] - sum(bits[1:]) / 124) < 0.01 and bytes(c[0] for c in score["candidates"]).decode() == "The 1" + expected
    # chat: the template's text, continued up to the next role's line
    chat = {"messages": [{"role": "system", "content": "Count."}, {"role": "user", "content": [{"type": "text", "text": "The 1"}]}], "seed": 3, "max_tokens": 60}
    answer = s.post("/v1/chat/completions", **chat)
    text = s.complete(prompt="system: Count.\nuser: The 1\nassistant: ", seed=3, max_tokens=60)["text"]
    assert answer["object"] == "chat.completion" and answer["choices"][0]["message"] == {"role": "assistant", "content": text}
    events = s.events("/v1/chat/completions", **chat, logprobs=True, top_logprobs=2)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant" and whole_text(events) == text
    assert sum(len((c["logprobs"] or {"content": []})["content"]) for e in events for c in e["choices"]) == 60
    # embeddings
    vectors = [e["embedding"] for e in s.post("/v1/embeddings", input=["The 1", "The 2"])["data"]]
    assert len(vectors) == 2 and vectors[0] != vectors[1] and all(abs(sum(x * x for x in v) - 1) < 1e-5 and len(v) == 32 for v in vectors)
    packed = s.post("/v1/embeddings", input="The 1", encoding_format="base64")["data"][0]["embedding"]
    assert all(abs(a - b) < 1e-6 for a, b in zip(struct.unpack("<32f", base64.b64decode(packed)), vectors[0]))
    assert s.post("/tokenize", content="é!")["tokens"] == [195, 169, 33] and s.post("/detokenize", tokens=[195, 169, 255])["content"] == "é\ufffd"
    assert json.loads(s.get("/v1/models"))["data"][0]["id"] == "model.safetensors" == json.loads(s.get("/v1/models/model.safetensors"))["id"]
    assert json.loads(s.get("/props"))["default_generation_settings"]["n_ctx"] == 256 and json.loads(s.get("/health")) == {"status": "ok"}
    assert json.loads(s.get("/describe"))["config"]["d_model"] == 32


def check_characters(s):
    """Bytes that are no UTF-8: a stream and a whole answer say the same, and return_bytes says what they were."""
    hot = {"prompt": "caf\u00e9 ", "max_tokens": 600, "temperature": 3, "seed": 5}
    whole = s.complete(**hot, return_bytes=True)
    raw = bytes(b[0] for b in whole["bytes"])
    assert len(raw) == 600 == len(base64.b64decode(whole["bytes_base64"])) and base64.b64decode(whole["bytes_base64"]) == raw
    assert "\ufffd" in whole["text"], "nothing but UTF-8: the test tests nothing"
    events = s.events("/v1/completions", **hot, return_bytes=True)
    assert whole_text(events) == whole["text"] and bytes(b[0] for e in events for c in e["choices"] for b in c.get("bytes", [])) == raw
    half = {"prompt": [0xF0], "max_tokens": 40, "seed": 5, "echo": True}  # a stream begins before there is a whole character
    for _ in range(5):
        assert whole_text(s.events("/v1/completions", **half)) == s.complete(**half)["text"]
    character = s.complete(prompt=[0xF0, 0x9F], max_tokens=0, echo=True)  # half a character, as bytes
    assert character["text"] == "\ufffd"
    assert s.complete(prompt="\x00a", max_tokens=0, echo=True)["text"] == "\x00a"


def check_together(s):
    """Each of 32 clients at once gets what it gets alone."""
    def ask(i):
        body = {"prompt": "The %d" % i, "max_tokens": 40 + 7 * (i % 9), "seed": i, "temperature": 0.5 + 0.1 * (i % 8), "top_k": (i % 3) * 20}
        return whole_text(s.events("/v1/completions", **body)) if i % 2 else s.complete(**body)["text"]
    alone = [ask(i) for i in range(32)]
    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            assert list(pool.map(ask, range(32))) == alone, "the same request and seed gave other bytes"
    assert len(set(alone)) > 25


def check_refusals(s):
    bad = [("/v1/completions", {}, "prompt is missing"), ("/v1/completions", {"prompt": 5}, "expected a string"), ("/v1/completions", {"prompt": [256]}, "0 to 255"),
           ("/v1/completions", {"prompt": "a", "temperature": -1}, "temperature"), ("/v1/completions", {"prompt": "a", "top_p": 0}, "top_p"),
           ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix is not supported"), ("/v1/completions", {"prompt": "a", "n": 1000}, "n:"),
           ("/v1/completions", {"prompt": "a", "max_tokens": 1 << 40}, "max_tokens"), ("/v1/completions", {"prompt": "a", "stop": [""]}, "stop"),
           ("/v1/completions", {"prompt": ["a"] * 65}, "65 texts"),
           ("/v1/completions", {"prompt": "a", "n": 64, "max_tokens": 60000, "logprobs": 256}, "986880000 results; this server gives at most 4194304"),
           ("/v1/score", {"input": ["x" * 256] * 64, "top": 256}, "4210688 results"), ("/v1/completions", {"prompt": "a", "stream": 1}, "true or false"),
           ("/v1/chat/completions", {"messages": []}, "messages"), ("/v1/chat/completions", {"messages": [{"content": "a"}]}, "no role"),
           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": [1]}, "tools is not supported"),
           ("/v1/embeddings", {"input": ""}, "empty"), ("/v1/score", {"input": "x" * 257}, "context length is 256"), ("/detokenize", {"tokens": [-1]}, "0 to 255")]
    for path, body, message in bad:
        error = s.post(path, 400, **body)["error"]
        assert message in error["message"] and error["type"] == "invalid_request_error", (path, body, error)
    for body in b"", b"{", b"[]", b'{"prompt":"a","prompt":"b"}', b'{"prompt":"\xff"}', b"[" * 60000:
        answer, data = s.ask("POST", "/v1/completions", body)
        assert answer.status == 400 and "error" in json.loads(data), (body[:20], answer.status, data)
    for method, path, status in ("GET", "/nothing", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405), ("GET", "/v1/models/x", 404), ("OPTIONS", "/health", 405):
        answer, data = s.ask(method, path, b"" if method == "POST" else None)
        assert answer.status == status and json.loads(data)["error"]["code"] == status, (method, path, answer.status)
    answer, data = s.ask("POST", "/v1/completions", {"prompt": "x" * 70000})
    assert answer.status == 413, answer.status
    answer, _ = s.ask("POST", "/v1/completions", {"prompt": "a"}, {"Origin": "https://evil.example"})
    assert answer.status == 403 and answer.headers["Access-Control-Allow-Origin"] is None
    assert s.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, {"Origin": f"http://127.0.0.1:{s.port}"})[0].status == 200
    answer, data = s.ask("HEAD", "/health")
    assert answer.status == 200 and data == b""
    for line in s.get("/metrics").splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) [a-z_:]+ .+|[a-z_:]+ [-+0-9.e]+", line), line


def check_page(s):
    answer, data = s.ask("GET", "/")
    page, policy = data.decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|https?://(?!www\.w3\.org/)", page), "the page reaches out, or makes markup of text"


def check_malformed(s):
    """Shapes that servers and proxies read differently; none may hang, or be taken for two requests."""
    body = b'{"prompt":"a","max_tokens":1}'
    post = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for shape in (b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", post + b"Content-Length: -1\r\n\r\n", post + b"Content-Length: x\r\n\r\n",
                  post + b"Content-Length: 99999999999999999999\r\n\r\n", post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 100000 + b"\r\n\r\n",
                  b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        answer = s.raw(shape)
        assert answer == b"" or re.match(rb"HTTP/1\.[01] (4|5)\d\d ", answer), (shape[:60], answer[:200])
    for framing in (b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n", b"Content-Length: %d\r\nContent-Length: 5\r\n",
                    b"Content-Length: 5\r\nContent-Length: %d\r\n", b"Transfer-Encoding: xchunked\r\nA: %d\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nA: %d\r\n",
                    b"Transfer-Encoding: gzip, chunked\r\nA: %d\r\n"):
        twice = s.raw(post + framing % (5 + len(smuggled)) + b"\r\n0\r\n\r\n" + smuggled)
        assert twice.startswith(b"HTTP/1.1 400") and b'"ok"' not in twice and twice.count(b"HTTP/1.1") == 1, (framing, twice)
    chunked = s.raw(post + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n", end=False)
    assert chunked.startswith(b"HTTP/1.1 200"), chunked[:200]
    pipelined = s.raw((post + b"Content-Length: %d\r\n\r\n" % len(body) + body) * 3 + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", end=False)
    assert pipelined.count(b"HTTP/1.1 200") == 4, pipelined
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(20)]  # half-open
    for n, i in enumerate(idle):  # they end after a minute without a byte
        i.sendall((post + b"Content-Length: 100\r\n\r\n{", b"\x00\x01\x02\r\n\r\n", b"POST /v1/comp", post)[n % 4])
    assert json.loads(s.get("/health")) == {"status": "ok"}
    for i in idle:
        i.close()


def begin_stream(s, **body):
    c = socket.create_connection(("127.0.0.1", s.port), timeout=60)
    data = json.dumps({"prompt": "The ", "max_tokens": 60000, **body}).encode()
    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return c


def check_leaving(s):
    """A client that goes away frees its place at once, whether it read a stream or waited."""
    for stream in True, False:
        before = s.metric("bitbyte:requests_cancelled_total")
        clients = [begin_stream(s, stream=stream) for _ in range(5)]
        s.wait_for("llamacpp:requests_processing", 5)
        if stream:
            assert b"200 OK" in clients[0].recv(1000)
        for c in clients:
            c.close()
        s.wait_for("llamacpp:requests_processing", 0)
        assert s.metric("bitbyte:requests_cancelled_total") - before <= 5
    assert s.complete(prompt="The ", max_tokens=3)["finish_reason"] == "length"


def check_half_closed(s):
    """A client that ends its sending half still gets its answer; one that then goes away ends its request."""
    for stream in True, False:
        body = json.dumps({"prompt": "The 1", "max_tokens": 3000, "seed": 4, "stream": stream}).encode()
        answer = s.raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        expected = s.complete(prompt="The 1", max_tokens=3000, seed=4)["text"]
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1, answer[:200]
        assert (b"data: [DONE]" in answer) if stream else json.loads(answer.split(b"\r\n\r\n", 1)[1])["choices"][0]["text"] == expected
        before = s.metric("bitbyte:requests_cancelled_total")
        c = begin_stream(s, stream=stream)
        s.wait_for("llamacpp:requests_processing", 1)
        c.shutdown(socket.SHUT_WR)
        time.sleep(0.2)  # passes of the model in which it is there; whatever comes first, the outcome is the same
        c.close()
        s.wait_for("llamacpp:requests_processing", 0)
        assert s.metric("bitbyte:requests_cancelled_total") - before <= 1
    # at any moment, while others do the same: before the answer, while it is written, behind it
    def end_half(i):
        body = json.dumps({"prompt": "The 1", "max_tokens": i % 60, "seed": i, "stream": i % 3 == 0}).encode()
        with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(i % 5 * 0.005)
            c.shutdown(socket.SHUT_WR)
            answer = b""
            while part := c.recv(65536):
                answer += part
        return b"HTTP/1.1 200" in answer
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answered = list(pool.map(end_half, range(300)))
    assert all(answered), f"{answered.count(False)} of 300 clients got no answer"
    # HTTP/1.0 knows no interim responses
    body = b'{"prompt": "The 1", "max_tokens": 3000}'
    answer = s.raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert re.match(rb"HTTP/1\.[01] 200", answer), answer[:100]


def check_hosts(s, allowed=()):
    """Names that the server goes by: a page of another site cannot make its own name one of them."""
    good = ["localhost", "LOCALHOST:80", f"127.0.0.1:{s.port}", "10.1.2.3", "[::1]:8080", "[::1]", *allowed]
    bad = ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "a" * 300, "[evil.example]", ""]
    for host in good + bad:
        for path in "/health", "/", "/v1/models":
            answer = s.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), end=False)
            expected = b"HTTP/1.1 200" if host in good else b"HTTP/1.1 403"
            assert answer.startswith(expected), (host, path, answer[:100])
    assert b"--allowed_host" in s.raw(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", end=False)


def check_slow_reader(s):
    """One that reads a few bytes a time neither stops the others nor loses a byte."""
    body = json.dumps({"prompt": "The 1", "max_tokens": 300, "seed": 4, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        expected = s.complete(prompt="The 1", max_tokens=300, seed=4)["text"]
        answer = b""
        while part := c.recv(997):
            answer += part
    got = "".join(json.loads(line)["choices"][0]["text"] for line in re.findall(rb'data: (\{"id.*?\})\n', re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", answer)))
    assert got == expected, (got[-80:], expected[-80:])


def check_runs():
    """The dashboard: what is in a folder of runs, and an event when one goes on."""
    s = Server("--runs", "runs", "--queue", 5, "--chat_template", "{role} {content}\\n", model=None)
    for option in "--queue", "--chat_template":
        assert f"note: {option} has no effect" in open("server.log").read(), open("server.log").read()
    answer, _ = s.ask("GET", "/")
    assert answer.status == 302 and answer.headers["Location"] == "/runs"
    answer, page = s.ask("GET", "/runs")
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"] and "unsafe-inline" not in re.search("script-src[^;]*", answer.headers["Content-Security-Policy"])[0]
    assert b"<main></main>" in page and b"EventSource" in s.ask("GET", "/runs/script.js")[1]
    assert sorted(r["name"] for r in json.loads(s.get("/runs/list"))) == ["<b>", "a", "b"]
    both = s.get("/runs/main?run=a&run=b&run=%3Cb%3E&smooth=0")
    assert both.count("<svg") >= 18 and both.count('class="curve"') >= 36 and "<b>" not in both.replace("<pre><b>", "") and "&lt;b&gt;" in both
    for other in "../run", ".", "missing", "%2e%2e/run":
        assert 'class="curve"' not in s.get("/runs/main?run=" + other)
    with socket.create_connection(("127.0.0.1", s.port), timeout=60) as c:
        c.sendall(b"GET /runs/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = b""
        while seen.count(b"changed") < 1:
            seen += c.recv(1000)
        with open("runs/a/metrics.jsonl", "a") as metrics:
            metrics.write('{"step":999,"val_bpb":1.25}\n')
        while seen.count(b"changed") < 2:
            seen += c.recv(1000)
        assert "1.25 at step 999" in s.get("/runs/main?run=a")
        assert s.ask("POST", "/v1/completions", {"prompt": "a"})[0].status == 404 and s.ask("GET", "/metrics")[0].status == 404
        s.end()  # ends the stream of events, too


def with_template(path, chat_template, out):
    """The model file with another chat template, of any kind, and so without checksums."""
    data = open(path, "rb").read()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"]["chat_template"] = chat_template
    del header["__metadata__"]["tensor_xxh3"]
    text = json.dumps(header).encode()
    with open(out, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data[end:])


def check_reloads():
    """a run directory goes on: its name, and what is said of the new model; vectors have the width of the model that made them"""
    shutil.copytree("other", "grows")
    s = Server(model="grows//")
    assert json.loads(s.get("/v1/models"))["data"][0]["id"] == "grows"
    assert json.loads(s.get("/props"))["model_path"].endswith("/step-00000100.safetensors")
    subprocess.run([program, "train", "--resume", "grows", "--steps", "101"], capture_output=True, check=True)
    s.process.send_signal(signal.SIGHUP)
    s.wait_for("bitbyte:reloads_total", 1)
    assert json.loads(s.get("/props"))["model_path"].endswith("/step-00000101.safetensors")
    assert json.loads(s.get("/describe"))["training_state"]["step"] == 101
    s.end()
    # Between the request and its turn another model may come. Streams keep the model busy meanwhile.
    models, expected = ("model.safetensors", "narrow.safetensors"), {}

    def load(name):
        shutil.copy(name, "new.safetensors")
        os.replace("new.safetensors", "width.safetensors")
        s.process.send_signal(signal.SIGHUP)

    def vector():
        return s.post("/v1/embeddings", input="The 1")["data"][0]["embedding"]

    shutil.copy(models[0], "width.safetensors")
    s = Server(model="width.safetensors")
    for count, name in enumerate(models, 1):
        load(name)
        s.wait_for("bitbyte:reloads_total", count)
        one = vector()
        expected[len(one)] = one
    assert list(expected) == [32, 16]
    streams = [begin_stream(s, stream=True) for _ in range(8)]
    for turn in range(20):
        load(models[turn % 2])
        while len(one := vector()) != (32, 16)[turn % 2]:
            assert one == expected[len(one)]
        assert one == expected[len(one)], "a vector of another model's width"
    for c in streams:
        c.close()
    s.end()


def check_chat_templates():
    """a chat template in the model's metadata, --chat_template before it, and one that is none"""
    chat = {"messages": [{"role": "user", "content": "The 1"}], "max_tokens": 60, "seed": 3}

    def expect_template(s, chat_template, prompt, stop):
        assert json.loads(s.get("/props"))["chat_template"] == chat_template
        answer, plain = s.post("/v1/chat/completions", **chat), s.post("/v1/completions", prompt=prompt, max_tokens=60, seed=3, stop=stop)
        assert answer["choices"][0]["message"]["content"] == plain["choices"][0]["text"], (answer, plain)
        assert answer["usage"] == plain["usage"]

    shutil.copy("templated.safetensors", "chat.safetensors")
    s = Server(model="chat.safetensors")
    of_model = "<{role}> {content}</{role}>\n", "<user> The 1</user>\n<assistant> ", ["</assistant>\n<user>", "</assistant>\n<system>", "</assistant>\n<assistant>"]
    expect_template(s, *of_model)
    assert json.loads(s.get("/describe"))["chat_template"] == of_model[0]
    answer = s.post("/v1/chat/completions", messages=[{"role": "user", "content": "3"}], max_tokens=60, temperature=0)["choices"][0]
    assert answer["finish_reason"] == "stop" and answer["message"]["content"] == "yes!", answer  # the model would go on with the next message
    with_template("templated.safetensors", "{content}", "bad.safetensors")
    shutil.copy("bad.safetensors", "chat.safetensors")
    s.process.send_signal(signal.SIGHUP)
    for _ in range(500):
        if "reload_failed" in open("server.log").read():
            break
        time.sleep(0.01)
    assert "chat.safetensors: chat template: expected" in open("server.log").read()
    expect_template(s, *of_model)
    with_template("templated.safetensors", "{role}={content};", "chat.safetensors")
    s.process.send_signal(signal.SIGHUP)
    s.wait_for("bitbyte:reloads_total", 1)
    expect_template(s, "{role}={content};", "user=The 1;assistant=", [";user=", ";system=", ";assistant="])
    s.end()
    for model in "templated.safetensors", "bad.safetensors":
        s = Server("--chat_template", "{role}: {content}|\\n", model=model)
        expect_template(s, "{role}: {content}|\n", "user: The 1|\nassistant: ", ["|\nuser:", "|\nsystem:", "|\nassistant:"])
        s.end()
    refused = subprocess.run([program, "serve", "bad.safetensors", "--port", "0"], capture_output=True, text=True)
    assert refused.returncode == 1 and "bad.safetensors: chat template: expected a text with {role} and {content}; use --chat_template to override it" in refused.stderr, refused


def main():
    for check in check_runs, check_reloads, check_chat_templates:
        check()
        print("ok:", check.__doc__, flush=True)
    s = Server("--max_body_kb", 64)
    for check in check_answers, check_characters, check_together, check_refusals, check_page, check_malformed, check_leaving, check_half_closed, check_hosts, check_slow_reader:
        check(s)
        print("ok:", check.__doc__ or check.__name__, flush=True)
    # a reload while a stream goes on: it keeps its model, later requests get the new one
    old = s.complete(prompt="The 1", max_tokens=20000, seed=9)["text"]
    s.wait_for("llamacpp:requests_processing", 0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(s.events, "/v1/completions", prompt="The 1", max_tokens=20000, seed=9)
        s.wait_for("llamacpp:requests_processing", 1)
        shutil.copy("other.safetensors", "new.safetensors")
        os.replace("new.safetensors", "model.safetensors")
        s.process.send_signal(signal.SIGHUP)
        s.wait_for("bitbyte:reloads_total", 1)
        new = s.complete(prompt="The 1", max_tokens=20000, seed=9)["text"]
        assert whole_text(stream.result()) == old != new, "a reload changed a stream, or changed nothing"
    with open("new.safetensors", "wb") as damaged:
        damaged.write(b"no model")
    shutil.copy("model.safetensors", "good.safetensors")
    os.replace("new.safetensors", "model.safetensors")
    s.process.send_signal(signal.SIGHUP)
    for _ in range(500):
        if "reload_failed" in open("server.log").read():
            break
        time.sleep(0.01)
    assert "reload_failed" in open("server.log").read() and s.complete(prompt="The 1", max_tokens=20000, seed=9)["text"] == new
    os.replace("good.safetensors", "model.safetensors")
    print("ok: SIGHUP loads the model again, and a damaged one changes nothing")
    # SIGTERM: what is written is written to its end
    s.wait_for("llamacpp:requests_processing", 0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(s.events, "/v1/completions", prompt="The 1", max_tokens=20000, seed=9)
        s.wait_for("llamacpp:requests_processing", 1)
        s.end()
        assert whole_text(stream.result()) == new
    for line in open("server.log").read().splitlines():
        json.loads(line)
    print("ok: SIGTERM lets a stream end, and each line of the log is JSON")

    s = Server("--sequences", 1, "--queue", 1, "--timeout", 0.5, "--drain_seconds", 0.2)
    clients = [begin_stream(s, max_tokens=65536, temperature=0) for _ in range(2)]
    s.wait_for("llamacpp:requests_processing", 1)
    answer, data = s.ask("POST", "/v1/completions", {"prompt": "a"})
    assert answer.status == 429 and answer.headers["Retry-After"] == "1" and json.loads(data)["error"]["type"] == "rate_limit_error", (answer.status, data)
    # more texts than there is ever room for
    assert "3 texts requested; this server allows 2" in s.post("/v1/completions", 400, prompt=["a"] * 3)["error"]["message"]
    answers = [c.recv(4096) for c in clients]
    assert all(b" 504 " in a for a in answers), answers
    s.wait_for("llamacpp:requests_processing", 0)
    late = begin_stream(s, stream=True)
    s.wait_for("llamacpp:requests_processing", 1)
    s.end()
    answer = b""
    while part := late.recv(65536):
        answer += part
    assert b"the server is shutting down" in answer or b"longer than this server" in answer
    s = Server("--sequences", 1, "--drain_seconds", 0.9)
    late = [begin_stream(s, max_tokens=65536) for _ in range(4)]
    s.wait_for("llamacpp:requests_processing", 1)
    begin = time.monotonic()
    s.end()
    assert time.monotonic() - begin > 0.8, "a fraction of a second is no time at all"
    print("ok: a full queue, a timeout, and the end of patience when it stops")

    with open("keys", "w") as keys:
        keys.write("first-key\nsecond-key\n")
    s = Server("--api_key_file", "keys", "--cors_origin", "https://site.example", "--chat_template", "[{role}] {content}|\\n", "--allowed_host", "site.example", "--allowed_host", "other.example")
    for given, status in ("", 401), ("Bearer first-key", 200), ("Bearer second-key", 200), ("bearer second-key", 200), ("Bearer first-ke", 401), ("Bearer first-keyx", 401), ("first-key", 401):
        for path in "/v1/models", "/metrics", "/props":
            assert s.ask("GET", path, None, {"Authorization": given} if given else {})[0].status == status, (given, path)
    assert s.ask("GET", "/health")[0].status == 200 == s.ask("GET", "/")[0].status
    key = {"Authorization": "Bearer first-key", "Origin": "https://site.example"}
    answer, data = s.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 20, "seed": 1}, key)
    assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == "https://site.example"
    _, plain = s.ask("POST", "/v1/completions", {"prompt": "[user] a|\n[assistant] ", "max_tokens": 20, "seed": 1}, key)
    assert json.loads(data)["choices"][0]["message"]["content"] == json.loads(plain)["choices"][0]["text"]
    answer, _ = s.ask("OPTIONS", "/v1/completions", None, {"Origin": "https://site.example", "Access-Control-Request-Method": "POST"})
    assert answer.status == 204 and "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert s.ask("GET", "/health", None, {"Origin": "https://other.example"})[0].status == 403
    assert s.raw(b"GET /health HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n", end=False).startswith(b"HTTP/1.1 200")
    assert s.raw(b"GET /health HTTP/1.1\r\nHost: third.example\r\nConnection: close\r\n\r\n", end=False).startswith(b"HTTP/1.1 403")
    s.end()
    print("ok: keys, another site's pages, a chat template, allowed hosts")


main()
