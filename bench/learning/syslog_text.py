# SPDX-License-Identifier: MIT
"""Generates a log of plausible syslog lines, the same bytes for the same seed and size, because real log files are private.

Events of a dozen hosts in chronological order. They have the predictable structure of logs (sessions that open and close with the same
process number, jobs that repeat every few minutes, growing counters) and unpredictable parts (addresses and times).
"""

import heapq
import random

HOSTS = ["web1", "web2", "db1", "db2", "mail", "build", "gate", "nas", "mon", "cache", "git", "vpn"]
USERS = ["root", "deploy", "anna", "boris", "chen", "dora", "backup", "git", "postgres", "www-data"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
JOBS = ["/usr/lib/sysstat/debian-sa1 1 1", "cd / && run-parts --report /etc/cron.hourly", "/usr/local/bin/rotate-cache --quiet",
        "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }"]  # fmt: skip
UNITS = ["apt-daily.service - Daily apt download activities", "logrotate.service - Rotate log files", "fstrim.service - Discard unused blocks",
         "man-db.service - Daily man-db regeneration", "systemd-tmpfiles-clean.service - Cleanup of Temporary Directories"]  # fmt: skip
PATHS = ["/", "/index.html", "/login", "/api/v1/items", "/api/v1/items/{n}", "/static/app.js", "/static/site.css", "/favicon.ico", "/search?q={w}"]
AGENTS = ["Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0", "curl/7.88.1", "python-requests/2.28.1",
          "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"]  # fmt: skip
WORDS = ["report", "invoice", "backup", "status", "holiday", "minutes", "budget", "draft"]
GUESSED = ["admin", "test", "oracle", "ubuntu", "user", "pi", "guest", "ftp"]


class Log:
    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.lines = []
        self.size = 0
        self.events = []  # (second, number, function, arguments); the number keeps the order of equal seconds
        self.number = 0
        self.pids = {host: 400 + self.below(600) for host in HOSTS}
        self.sessions = {host: 1 for host in HOSTS}
        self.uptime = {host: 1000 + self.below(500000) for host in HOSTS}
        self.now = 0.0

    # random() alone: what else the module draws may change with Python's version
    def below(self, n):
        return int(self.draw.random() * n)

    def one(self, values):
        return values[self.below(len(values))]

    def gap(self, mean):
        return mean * (0.2 + 1.6 * self.draw.random())

    def address(self):
        return self.one(["10.0.{}.{}", "192.168.1.{1}", "203.0.113.{1}", "198.51.{}.{}"]).format(self.below(256), 1 + self.below(254))

    def pid(self, host):
        self.pids[host] = 400 + (self.pids[host] + 1 + self.below(40) - 400) % 32000
        return self.pids[host]

    def hexadecimal(self, digits):
        return "".join("0123456789abcdef"[self.below(16)] for _ in range(digits))

    def later(self, seconds, act, *args):
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, act, args))

    def say(self, host, program, text):
        second = int(self.now)
        day, month = second // 86400 % 365, 0
        while day >= DAYS[month]:
            day, month = day - DAYS[month], month + 1
        clock = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        line = f"{MONTHS[month]} {day + 1:2d} {clock} {host} {program}: {text}\n"
        self.lines.append(line)
        self.size += len(line)

    # Each of these says what happens on a host, and when it happens next.
    def login(self, host):
        user, pid, address, port = self.one(USERS), self.pid(host), self.address(), 32768 + self.below(28000)
        sshd, session = f"sshd[{pid}]", self.sessions[host]
        self.sessions[host] += 1
        key = self.hexadecimal(12)
        self.say(host, sshd, f"Accepted publickey for {user} from {address} port {port} ssh2: ED25519 SHA256:{key}")
        self.say(host, sshd, f"pam_unix(sshd:session): session opened for user {user}(uid={1000 + USERS.index(user)}) by (uid=0)")
        self.say(host, "systemd-logind[312]", f"New session {session} of user {user}.")
        if user == "deploy" and self.below(2):
            self.later(self.gap(20), self.restart, host, user)
        self.later(self.gap(900), self.logout, host, sshd, user, address, port, session)
        self.later(self.gap(700), self.login, host)

    def restart(self, host, user):
        unit = self.one(["app", "worker", "nginx"])
        self.say(host, "sudo", f"{user} : TTY=pts/{self.below(4)} ; PWD=/srv/app ; USER=root ; COMMAND=/usr/bin/systemctl restart {unit}")
        self.say(host, "systemd[1]", f"Stopping {unit}.service...")
        self.say(host, "systemd[1]", f"{unit}.service: Deactivated successfully.")
        self.say(host, "systemd[1]", f"Started {unit}.service.")

    def logout(self, host, sshd, user, address, port, session):
        self.say(host, sshd, f"Received disconnect from {address} port {port}:11: disconnected by user")
        self.say(host, sshd, f"pam_unix(sshd:session): session closed for user {user}")
        self.say(host, "systemd-logind[312]", f"Session {session} logged out. Waiting for processes to exit.")
        self.say(host, "systemd-logind[312]", f"Removed session {session}.")

    def attack(self, host):
        address = self.address()
        for _ in range(1 + self.below(5)):
            user, port, sshd = self.one(GUESSED), 32768 + self.below(28000), f"sshd[{self.pid(host)}]"
            self.say(host, sshd, f"Invalid user {user} from {address} port {port}")
            self.say(host, sshd, f"Connection closed by invalid user {user} {address} port {port} [preauth]")
            self.now += self.below(3)
        self.later(self.gap(1500), self.attack, host)

    def cron(self, host, every, job):
        pid = self.pid(host)
        self.say(host, f"CRON[{pid}]", "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)")
        self.say(host, f"CRON[{pid + 1}]", f"(root) CMD ({job})")
        self.say(host, f"CRON[{pid}]", "pam_unix(cron:session): session closed for user root")
        self.later(every - self.now % every, self.cron, host, every, job)

    def unit(self, host):
        name = self.one(UNITS)
        self.say(host, "systemd[1]", f"Starting {name}...")
        self.later(1 + self.below(9), self.unit_done, host, name, self.below(4000))
        self.later(self.gap(5000), self.unit, host)

    def unit_done(self, host, name, milliseconds):
        service = name.split(" ")[0]
        self.say(host, "systemd[1]", f"{service}: Deactivated successfully.")
        self.say(host, "systemd[1]", f"Finished {name}.")
        if milliseconds > 1000:
            self.say(host, "systemd[1]", f"{service}: Consumed {milliseconds / 1000:.3f}s CPU time.")

    def request(self, host):
        path = self.one(PATHS).format(n=self.below(5000), w=self.one(WORDS))
        status, size = (200, 200 + self.below(30000)) if self.below(12) else self.one([(404, 153), (302, 0), (500, 177), (304, 0)])
        self.say(host, "nginx", f'{self.address()} - - "GET {path} HTTP/1.1" {status} {size} "-" "{self.one(AGENTS)}"')
        self.later(self.gap(25), self.request, host)

    def dropped(self, host):
        at = self.uptime[host] + self.now
        self.say(host, "kernel", f"[{at:12.6f}] [UFW BLOCK] IN=eth0 OUT= SRC={self.address()} DST=192.0.2.{1 + HOSTS.index(host)} LEN={40 + 4 * self.below(6)} "
                 f"TTL={40 + self.below(200)} ID={self.below(65536)} PROTO=TCP SPT={1024 + self.below(64000)} DPT={self.one([22, 23, 80, 443, 445, 3389, 8080])} "
                 "WINDOW=1024 RES=0x00 SYN URGP=0")  # fmt: skip
        self.later(self.gap(300), self.dropped, host)

    def mail(self, host):
        queue, size = self.hexadecimal(10).upper(), 800 + self.below(60000)
        sender, receiver = self.one(USERS), self.one(USERS)
        self.say(host, f"postfix/smtpd[{self.pid(host)}]", f"{queue}: client=unknown[{self.address()}]")
        self.say(host, f"postfix/cleanup[{self.pid(host)}]", f"{queue}: message-id=<{self.hexadecimal(16)}@example.org>")
        self.say(host, "postfix/qmgr[911]", f"{queue}: from=<{sender}@example.org>, size={size}, nrcpt=1 (queue active)")
        self.later(1 + self.below(4), self.delivered, host, queue, receiver)
        self.later(self.gap(120), self.mail, host)

    def delivered(self, host, queue, receiver):
        delay = self.below(400) / 100
        self.say(host, f"postfix/local[{self.pid(host)}]",
                 f"{queue}: to=<{receiver}@example.org>, relay=local, delay={delay:g}, dsn=2.0.0, status=sent (delivered to mailbox)")  # fmt: skip
        self.say(host, "postfix/qmgr[911]", f"{queue}: removed")

    def lease(self, host):
        server, seconds = "192.0.2.254", 1200 + self.below(600)
        self.say(host, "dhclient[388]", f"DHCPREQUEST for 192.0.2.{1 + HOSTS.index(host)} on eth0 to {server} port 67")
        self.say(host, "dhclient[388]", f"DHCPACK of 192.0.2.{1 + HOSTS.index(host)} from {server}")
        self.say(host, "dhclient[388]", f"bound to 192.0.2.{1 + HOSTS.index(host)} -- renewal in {seconds} seconds.")
        self.later(seconds, self.lease, host)


def syslog(size, seed=1):
    """Whole lines, in bytes, as many as fit into `size`."""
    log = Log(seed)
    for host in HOSTS:
        for act in (log.login, log.attack, log.unit, log.dropped, log.lease):
            log.later(log.gap(600), act, host)
        log.later(60, log.cron, host, 600, JOBS[0])
        log.later(17 * 60, log.cron, host, 3600, log.one(JOBS[1:]))
    for host in ("web1", "web2"):
        log.later(5, log.request, host)
    log.later(9, log.mail, "mail")
    while log.size < size + 4096:
        at, _, act, args = heapq.heappop(log.events)
        log.now = max(log.now, at)
        act(*args)
    text = "".join(log.lines)[:size]
    return text[: text.rfind("\n") + 1].encode("ascii")
