# SPDX-License-Identifier: MIT
"""A `bitbyte serve` and a client of it, for serve_checks.py and serve_load.py, whose first argument is the program."""
import atexit
import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time

program = sys.argv[1]


class Server:
    def __init__(self, *options, model="model.safetensors"):
        self.log = open("server.log", "w+")
        self.process = subprocess.Popen([program, "serve", *([model] if model else []), "--port", "0", "--threads", "1", *map(str, options)], stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        atexit.register(self.process.kill)  # where a check fails
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1]) if ":" in line else sys.exit("no server: " + open("server.log").read())

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer, data

    def get(self, path):
        answer, data = self.ask("GET", path)
        assert answer.status == 200, (path, answer.status, data)
        return data.decode()

    def post(self, path, status=200, **body):
        answer, data = self.ask("POST", path, body)
        assert answer.status == status, (path, body, answer.status, data)
        return json.loads(data)

    def complete(self, **body):
        return self.post("/v1/completions", **body)["choices"][0]

    def events(self, path, **body):
        """The events of a stream, as JSON; the last one is [DONE]."""
        answer, data = self.ask("POST", path, {**body, "stream": True})
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream", (answer.status, data)
        events = data.decode().split("\n\n")  # decode() fails where a character is split
        assert events[-1] == "" and events[-2] == "data: [DONE]", events[-2:]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

    def metric(self, name):
        return float(re.search(rf"^{name} (\S+)$", self.get("/metrics"), re.M)[1])

    def wait_for(self, name, value):
        for _ in range(2000):
            if self.metric(name) == value:
                return
            time.sleep(0.01)
        raise AssertionError(f"{name} is {self.metric(name)}, not {value}")

    def raw(self, data, end=True):
        """What comes back for bytes sent as they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as s:
            with contextlib.suppress(OSError):  # closed already
                s.sendall(data)
                if end:
                    s.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := s.recv(65536):
                    answer += part
            return answer

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, "exit status after SIGTERM"


def whole_text(events):
    return "".join(c.get("text", c.get("delta", {}).get("content", "")) for e in events for c in e["choices"])
