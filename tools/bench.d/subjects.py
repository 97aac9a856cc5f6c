"""What is measured: how each subject is started, told what to do, and asked for its version."""

import contextlib
import json
import os
import re
import signal
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

from rows import CALM

HERE = Path(__file__).resolve().parent

# What asks for its version, and where the answer has it and that of its TLS library.
VERSIONS = {
    "haproxy": ("-vv", r"HAProxy version (\d[\d.]*).*Running on OpenSSL version : (OpenSSL \S+)"),
    "envoy": ("--version", r"/(\d[\d.]*)/.*/(\w+)"),
    "nginx": ("-V", r"nginx/(\d[\d.]*).*built with (OpenSSL \S+)"),
    "openssl": ("version", r"OpenSSL (\S+)"),
    "stunnel": ("-version", r"stunnel (\d[\d.]*) .*Running +with (OpenSSL \S+)"),
}

# Envoy takes seconds to start.
PATIENCE = 30


class Subjects:
    """Starts subjects on one CPU, what they talk to on the other; all of it ends with the stack that is handed in."""

    def __init__(self, programs, folder, stack, patience):
        self.programs, self.folder, self.calm = programs, folder, Calm(patience)
        cpus = sorted(os.sched_getaffinity(0))
        self.cpu, self.cpu_of_load = cpus[0], cpus[min(1, len(cpus) - 1)]
        if len(cpus) < 2:
            say("one CPU only: the load and what it loads share it, and every figure is too high")
        # Outside of the range from which the connections of the load take theirs.
        self.ports = iter(range(10_000, 15_000))
        self.load("certificate", folder)
        for key in folder.glob("*.key"):
            key.chmod(0o600)
        # HAProxy wants a certificate and its key in one file.
        for name in ("edge", "gateway"):
            both = (folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text()
            (folder / f"{name}-both.pem").write_text(both)
        self.upstream = self.announced(stack, self.cpu_of_load, "serve", "--certificate", folder, lines=4)

    def start(self, stack, subject):
        """The process and where it listens, for each way to speak that it understands; `raw-bulk` if bulk has a port of its own."""
        if subject in ("portcullis", "base"):
            return self.gateway(stack, subject)
        if subject == "relay":
            return self.announced(stack, self.cpu, "relay", "--certificate", self.folder, "--raw", self.upstream["raw"],
                                  "--plain", self.upstream["plain"], "--mesh", self.upstream["mesh"], lines=3)
        if subject == "splice":
            return self.announced(stack, self.cpu, "splice", "--raw", self.upstream["raw"], lines=1)
        if subject == "direct":
            served = self.announced(stack, self.cpu, "serve", "--certificate", self.folder, lines=4)
            return {**served, "mesh": served["tls"]}
        return getattr(self, subject)(stack)

    def upstream_of(self, subject, speak):
        """Who must answer there."""
        if subject == "direct":
            return "raw" if speak == "raw" else "tls"
        return "plain" if speak == "tls" else speak

    def gateway(self, stack, name):
        # A file of its own: a gateway reads again what changes.
        config = self.configured("portcullis.toml", **self.upstream).rename(self.folder / f"{name}.toml")
        # A release from before there were such limits does not know the keys, and lets everybody in.
        if subprocess.run([self.programs[name], "check", "--config", config], capture_output=True, check=False).returncode != 0:
            config.write_text(config.read_text().split("[limits]")[0])
        said = self.folder / f"{name}.said"
        with said.open("w") as stderr:
            process = self.spawn(stack, self.cpu, [self.programs[name], "serve", "--config", config],
                                 stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, "TOKIO_WORKER_THREADS": "1"})

        def listening():
            for line in said.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    told = json.loads(line)
                    if told.get("message") == "listening":
                        return told["address"]
            return None

        address = self.wait(name, process, said, listening)
        return {"pid": process.pid, **dict.fromkeys(["raw", "tls", "mesh"], address)}

    def haproxy(self, stack):
        ports = self.ports_for_modes("bulk_port")
        config = self.configured("haproxy.cfg", folder=self.folder, **ports, **self.upstream)
        return self.peer(stack, "haproxy", ["-db", "-f", config], ports)

    def nginx(self, stack):
        ports = self.ports_for_modes()
        config = self.configured("nginx.conf", folder=self.folder, **ports, **self.upstream)
        # A process that is killed leaves its workers behind; one that is asked takes them along.
        return self.peer(stack, "nginx", ["-p", self.folder, "-e", "stderr", "-c", config], ports, death=signal.SIGTERM)

    def envoy(self, stack):
        port = self.port()
        to = {f"{name}_port": self.upstream[name].rpartition(":")[2] for name in ("raw", "plain")}
        to["mesh_upstream_port"] = self.upstream["mesh"].rpartition(":")[2]
        config = self.configured("envoy.yaml", folder=self.folder, port=port, **to)
        ports = dict.fromkeys(["pass_port", "terminate_port", "mesh_port"], port)
        return self.peer(stack, "envoy", ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", config], ports)

    def stunnel(self, stack):
        ports = {"terminate_port": self.port()}
        config = self.configured("stunnel.conf", folder=self.folder, **ports, **self.upstream)
        return self.peer(stack, "stunnel", [config], ports)

    def peer(self, stack, name, arguments, ports, death=signal.SIGKILL):
        said = self.folder / f"{name}.said"
        with said.open("w") as output:
            process = self.spawn(stack, self.cpu, [self.programs[name], *arguments], death, stdout=output, stderr=subprocess.STDOUT)
        for port in ports.values():
            self.wait(name, process, said, lambda port=port: answers(port))
        modes = {"pass_port": "raw", "bulk_port": "raw-bulk", "terminate_port": "tls", "mesh_port": "mesh"}
        return {"pid": process.pid, **{modes[mode]: f"127.0.0.1:{port}" for mode, port in ports.items()}}

    def announced(self, stack, cpu, *command, lines):
        """Starts a command of benches/load that prints what it listens for, and where."""
        process = self.spawn(stack, cpu, [self.programs["load"], *command], stdout=subprocess.PIPE, text=True)
        addresses = dict(process.stdout.readline().split() for _ in range(lines))
        return {"pid": process.pid, **addresses}

    def spawn(self, stack, cpu, command, death=signal.SIGKILL, **how):
        # The kernel ends it even if this script is killed.
        command = ["setpriv", "--pdeathsig", death.name.removeprefix("SIG"), "--", "taskset", "--cpu-list", str(cpu), *map(str, command)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **how)
        stack.callback(end, process, death)
        return process

    def wait(self, name, process, said, ready):
        late = time.monotonic() + PATIENCE
        while time.monotonic() < late and process.poll() is None:
            if found := ready():
                return found
            time.sleep(0.02)
        sys.exit(f"error: {name} does not start:\n{said.read_text()}")

    def configured(self, template, **values):
        text = string.Template((HERE / template).read_text()).substitute(values)
        file = self.folder / template
        file.write_text(text)
        return file

    def ports_for_modes(self, *more):
        return {mode: self.port() for mode in ("pass_port", "terminate_port", "mesh_port", *more)}

    def port(self):
        for port in self.ports:
            if not answers(port):
                return port
        sys.exit("error: no port is left between 10000 and 15000")

    def load(self, *arguments, of="", secs=0, attempts=1):
        """What a command of benches/load prints. One that fails ends everything, or is tried again for as often as is said."""
        command = ["taskset", "--cpu-list", str(self.cpu_of_load), self.programs["load"], *map(str, arguments)]
        environment = {**os.environ, "RUST_BACKTRACE": "0"}
        for left in reversed(range(attempts)):
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=120 + 10 * secs)
            if done.returncode == 0:
                return done.stdout
            say(f"`{' '.join(command)}` has failed{f' with {of}' if of else ''}{', and is tried again' if left else ''}")
            if left:
                self.calm.wait()
        said = self.folder / f"{of}.said"
        sys.exit(f"error: {of or 'this'} cannot be measured" + (f"; it said:\n{said.read_text()}" if said.exists() else ""))


class Calm:
    """Waits for a machine that has nothing else to do: for so many seconds, and for less and less of them if it never is."""

    def __init__(self, patience):
        self.most = self.patience = patience

    def wait(self):
        late = time.monotonic() + self.patience
        while time.monotonic() < late:
            before = busy()
            time.sleep(0.5)
            if (busy() - before) / 0.5 < CALM:
                self.patience = self.most
                return
        self.patience /= 2


def busy():
    """Seconds of all CPUs: user, nice, system, irq, softirq, steal; in ticks of 10 ms (USER_HZ)."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(ticks[at] for at in (0, 1, 2, 5, 6, 7)) / 100


def end(process, death):
    process.send_signal(death)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def versions(programs):
    """What each peer says of itself and of its TLS library."""
    found = {}
    for name, (option, pattern) in VERSIONS.items():
        if name in programs:
            done = subprocess.run([programs[name], option], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            told = re.search(pattern, done.stdout, re.DOTALL)
            found[name] = " with ".join(told.groups()) if told else "says no version"
    return found


def say(words):
    print(f"bench: {words}", file=sys.stderr, flush=True)
