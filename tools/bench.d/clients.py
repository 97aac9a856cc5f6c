"""What the client side costs: `portcullis connect` beside what else people put into ssh's ProxyCommand."""

import contextlib
import os
import ssl
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import table
from subjects import say

SUBJECTS = ["portcullis", "stunnel", "openssl"]

# Whom the server proves to be, and whom it does not.
NAME, OTHER = "terminate.bench.test", "other.bench.test"

# So many starts a round; and so many bytes, each way.
STARTS = 20
GIB = 1 << 30

# The server's commands (benches/load/server.rs).
ECHO, SOURCE, SINK = b"e", b"s", b"k"

# Nothing that works takes longer.
PATIENCE = 60

# What is measured, its unit, and its goal: the share of stunnel's figure that ours may be at most.
ROWS = [
    ("start", "to the first byte, one CA", "cpu_ms", "CPU ms", 1.0),
    ("start", "", "wall_ms", "ms", None),
    ("roots", "to the first byte, the system's CAs", "cpu_ms", "CPU ms", 1.0),
    ("roots", "", "wall_ms", "ms", None),
    ("start", "memory then", "peak_mib", "MiB", None),
    ("start", "of it its own", "own_mib", "MiB", None),
    ("down", "1 GiB downwards", "cpu_s", "CPU s", 1.0),
    ("up", "1 GiB upwards", "cpu_s", "CPU s", 1.0),
    ("down", "memory then", "peak_mib", "MiB", None),
    ("down", "of it its own", "own_mib", "MiB", None),
]


def measure(subjects, rounds):
    """The medians of the rounds, and of the rounds' ratios, as a table."""
    clients = Clients(subjects)
    for subject in SUBJECTS:
        clients.check(subject)
    found = []
    for number in range(rounds):
        # Nobody is always the first one.
        order = SUBJECTS[number % len(SUBJECTS):] + SUBJECTS[:number % len(SUBJECTS)]
        figures = {subject: {} for subject in order}
        for what in ("start", "roots"):
            starts = {subject: [] for subject in order}
            for _ in range(STARTS):
                for subject in order:
                    starts[subject].append(clients.start(subject, what))
            for subject in order:
                figures[subject][what] = {key: statistics.median(one[key] for one in starts[subject]) for key in starts[subject][0]}
        for what in ("down", "up"):
            for subject in order:
                figures[subject][what] = clients.bulk(subject, what)
        found.append(figures)
        say(f"round {number + 1} of {rounds} done")
    return told(found)


def told(rounds):
    lines = [["", "unit", *SUBJECTS, "goal"]]
    for what, name, key, unit, bound in ROWS:
        values = {subject: [figures[subject][what][key] for figures in rounds] for subject in SUBJECTS}
        goal = ""
        if bound is not None:
            ratio = statistics.median(ours / theirs for ours, theirs in zip(values["portcullis"], values["stunnel"]))
            goal = f"{ratio:.2f} of stunnel, ≤ {bound:.2f} {'✓' if ratio <= bound else '✗'}"
        lines.append([name, unit, *(table.number(statistics.median(values[subject])) for subject in SUBJECTS), goal])
    return table.table(lines)


class Clients:
    """Starts each as ssh starts it, with a pipe at each end, on one CPU; the server and this script have the other."""

    def __init__(self, subjects):
        self.programs, self.folder = subjects.programs, subjects.folder
        self.address = subjects.upstream["tls"]
        self.cpu, self.cpu_of_load = subjects.cpu, subjects.cpu_of_load
        os.sched_setaffinity(0, {self.cpu_of_load})
        # What the system trusts, and the one that is needed: everyone reads all of it.
        system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
        own = (self.folder / "edge.pem").read_text()
        (self.folder / "roots.pem").write_text(Path(system).read_text() + own)
        self.nothing = os.open("/dev/null", os.O_WRONLY)

    def command(self, subject, roots, name):
        trust = self.folder / ("roots.pem" if roots else "edge.pem")
        if subject == "portcullis":
            trusting = [] if roots else ["--ca", trust]
            return [self.programs["portcullis"], "connect", "--gateway", self.address, *trusting, "--proxy", "none", "--", name]
        if subject == "openssl":
            trusting = [] if roots else ["-CAfile", trust, "-no-CApath", "-no-CAstore"]
            return [self.programs["openssl"], "s_client", "-quiet", "-connect", self.address, "-servername", name,
                    "-verify_return_error", "-verify_hostname", name, *trusting]
        config = self.folder / f"stunnel-{'roots' if roots else 'one'}-{name}.conf"
        config.write_text(f"client = yes\ndebug = err\nsyslog = no\npid =\nconnect = {self.address}\nsni = {name}\ncheckHost = {name}\n"
                          f"verifyChain = yes\nCAfile = {trust}\nsocket = r:TCP_NODELAY=1\n")
        return [self.programs["stunnel"], config]

    @contextlib.contextmanager
    def running(self, subject, roots=False, name=NAME):
        # The environment's roots count where no option names others.
        environment = {**os.environ, "SSL_CERT_FILE": str(self.folder / "roots.pem"), "XDG_CONFIG_HOME": str(self.folder)}
        command = list(map(str, self.command(subject, roots, name)))
        # A child has the CPU of who started it; a program in between would cost time of its own.
        os.sched_setaffinity(0, {self.cpu})
        begin = time.monotonic()
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, bufsize=0)
        os.sched_setaffinity(0, {self.cpu_of_load})
        # Whatever hangs is ended, and then seen to have failed.
        late = threading.Timer(PATIENCE, client.kill)
        late.start()
        try:
            yield client, begin
        finally:
            late.cancel()
            client.kill()
            client.wait()
            for end in (client.stdin, client.stdout, client.stderr):
                with contextlib.suppress(OSError):
                    end.close()

    def check(self, subject):
        """Who takes a certificate for another name must not be measured."""
        with self.running(subject, name=OTHER) as (client, _):
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(ECHO + b".")
            if came := client.stdout.read(1):
                sys.exit(f"error: {subject} has taken a certificate for another name: {came}")

    def start(self, subject, what):
        """From the start until a byte has come back."""
        with self.running(subject, roots=what == "roots") as (client, begin):
            client.stdin.write(ECHO + b".")
            self.heard(subject, client)
            wall = time.monotonic() - begin
            return {"wall_ms": wall * 1e3, "cpu_ms": cpu(client.pid) * 1e3, **memory(client.pid)}

    def bulk(self, subject, what):
        """Of a client that is there already: what it needs for the bytes alone."""
        with self.running(subject) as (client, _):
            if what == "down":
                client.stdin.write(SOURCE)
                self.heard(subject, client)
                before = cpu(client.pid)
                left = GIB
                while left:
                    moved = os.splice(client.stdout.fileno(), self.nothing, min(left, 1 << 20))
                    left -= moved or self.fail(subject, client)
            else:
                client.stdin.write(SINK)
                before = self.settled(client.pid)
                chunk, left = memoryview(bytes(1 << 16)), GIB
                while left:
                    left -= client.stdin.write(chunk[:left])
            spent = cpu(client.pid) - before
            return {"cpu_s": spent, **memory(client.pid)}

    def settled(self, pid):
        """The CPU time of one that has done all it has to do for now."""
        before = -1
        while (now := cpu(pid)) != before:
            before = now
            time.sleep(0.2)
        return now

    def heard(self, subject, client):
        return client.stdout.read(1) or self.fail(subject, client)

    def fail(self, subject, client):
        client.kill()
        sys.exit(f"error: {subject} cannot be measured: {client.stderr.read().decode(errors='replace')}")


def cpu(pid):
    """Seconds of all threads that are there; none of these programs ends one before it ends itself."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def memory(pid):
    """MiB: at most so far, with the pages of the program's file, which all share that run; and now of the process alone."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file)
    peak, own = (int(lines[key].split()[0]) / 1024 for key in ("VmHWM", "RssAnon"))
    return {"peak_mib": peak, "own_mib": own}
