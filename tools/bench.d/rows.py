"""What is measured, the figures that are shown of it, and what they ought to be."""

import statistics
from dataclasses import dataclass

# Which of them a row has depends on what each can do.
SUBJECTS = ["portcullis", "relay", "splice", "direct", "haproxy", "envoy", "nginx", "stunnel"]

# More than this share of one CPU, taken by other programs, disturbs a measurement.
CALM = 0.20


@dataclass(frozen=True)
class Measurement:
    """One run of benches/load: its command, how it speaks, how many connections there are, and what else it is told."""

    name: str
    command: str
    speak: str
    connections: int = 0
    more: tuple = ()
    # Some peers' TLS libraries do not know the key exchange; a bare relay cannot tell what an idle connection costs, for
    # its pipes are the kernel's memory.
    without: tuple = ()


@dataclass(frozen=True)
class Row:
    """One figure of a measurement."""

    name: str
    unit: str
    of: str
    key: str
    # Pairs of a subject and the share of its figure that ours may be at most; of nobody, the figure itself.
    goals: tuple = ()


CLASSICAL = ("haproxy", "nginx", "stunnel")

MEASUREMENTS = [
    Measurement("terminate-connection", "connections", "tls", 32),
    Measurement("terminate-connection-pq", "connections", "tls", 32, ("--exchange", "x25519mlkem768"), CLASSICAL),
    Measurement("mesh-connection", "connections", "mesh", 32),
    Measurement("pass-connection", "connections", "raw", 32),
    Measurement("terminate-bulk-1", "bulk", "tls", 1),
    Measurement("terminate-bulk-16", "bulk", "tls", 16),
    Measurement("terminate-bulk-up-1", "bulk", "tls", 1, ("--up",)),
    Measurement("mesh-bulk-1", "bulk", "mesh", 1),
    Measurement("pass-bulk-1", "bulk", "raw", 1),
    Measurement("pass-bulk-16", "bulk", "raw", 16),
    Measurement("terminate-pingpong-1", "pingpong", "tls", 1),
    Measurement("terminate-pingpong-32", "pingpong", "tls", 32),
    Measurement("terminate-idle", "idle", "tls"),
    Measurement("pass-idle", "idle", "raw", without=("splice",)),
    Measurement("mesh-idle", "idle", "mesh"),
]

CONNECTION, BULK, IDLE = "cpu_us_per_connection", "cpu_s_per_gb", "kib_per_connection"

ROWS = [
    Row("terminate: a connection", "CPU µs", "terminate-connection", CONNECTION, (("envoy", 0.62),)),
    Row("terminate: a connection, X25519MLKEM768", "CPU µs", "terminate-connection-pq", CONNECTION),
    Row("mesh: a connection", "CPU µs", "mesh-connection", CONNECTION, (("envoy", 0.65),)),
    Row("pass: a connection", "CPU µs", "pass-connection", CONNECTION, (("splice", 1.0), ("haproxy", 1.0))),
    Row("terminate: bulk, 1 connection", "CPU s/GB", "terminate-bulk-1", BULK, (("envoy", 0.70),)),
    Row("terminate: bulk, 16 connections", "CPU s/GB", "terminate-bulk-16", BULK, (("envoy", 0.57),)),
    Row("terminate: bulk upwards, 1 connection", "CPU s/GB", "terminate-bulk-up-1", BULK),
    Row("mesh: bulk, 1 connection", "CPU s/GB", "mesh-bulk-1", BULK),
    Row("pass: bulk, 1 connection", "CPU s/GB", "pass-bulk-1", BULK, (("splice", 1.0),)),
    Row("pass: bulk, 16 connections", "CPU s/GB", "pass-bulk-16", BULK, (("splice", 1.0),)),
    Row("terminate: 1 ping-pong, p50", "µs", "terminate-pingpong-1", "p50_us"),
    Row("terminate: 1 ping-pong, p99", "µs", "terminate-pingpong-1", "p99_us"),
    Row("terminate: 32 ping-pongs, p50", "µs", "terminate-pingpong-32", "p50_us"),
    Row("terminate: 32 ping-pongs, p99", "µs", "terminate-pingpong-32", "p99_us", (("haproxy", 0.75),)),
    Row("terminate: an idle connection", "KiB", "terminate-idle", IDLE, ((None, 7.0),)),
    Row("pass: an idle connection", "KiB", "pass-idle", IDLE, ((None, 2.6),)),
    Row("mesh: an idle connection", "KiB", "mesh-idle", IDLE, ((None, 13.0),)),
]

# The same seen from the other side: what one CPU can do.
RATES = {
    "connections": ("a second", "per_second"),
    "bulk": ("Gbit/s", "gbit_per_second"),
    "pingpong": ("a second", "per_second"),
}


def values(report, row, subject):
    """The figure of every round; none of a subject that was not measured."""
    figures = (figures.get(row.of, {}).get(subject) for figures in report["rounds"])
    return [figure[row.key] for figure in figures if figure]


def median(report, row, subject):
    found = values(report, row, subject)
    return statistics.median(found) if found else None


def ratios(report, row, one, other):
    """Of every round: what slows a whole round down slows both."""
    pairs = zip(values(report, row, one), values(report, row, other))
    return [ours / theirs for ours, theirs in pairs if theirs > 0]


def ratio(report, row, one, other):
    found = ratios(report, row, one, other)
    return statistics.median(found) if found else None


def shown(report):
    """The rows that something was measured for."""
    return [row for row in ROWS if any(row.of in figures for figures in report["rounds"])]
