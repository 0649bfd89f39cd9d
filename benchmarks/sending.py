"""Durable messages a second: senders that send the next message when the last is acknowledged."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Loop, Script, request
from benchmarks.load.population import Account, Population
from benchmarks.load.processes import cpu_seconds
from tests.support.process import CHECKOUT, free_port

WARM_UP_SECONDS = 1.0
SENDERS = 64
FEW = 10
NAMES = (
    "64 senders in 64 rooms",
    "10 senders",
    "1 sender",
    "10 senders in one room",
    "64 senders in a room of 100",
)


@dataclass(frozen=True)
class Load:
    """The result of a closed loop: responses a second, CPU seconds for each, latencies."""

    rate: float
    cpu_seconds: float
    latencies: list[float]
    client_busy: float

    def note(self) -> str:
        """Latency, and how busy the load generator was: near 100 % it would be the bottleneck."""
        cuts = statistics.quantiles(self.latencies, n=100)
        return (
            f"median {cuts[49] * 1000:.1f} ms, 99 % {cuts[98] * 1000:.1f} ms,"
            f" client {self.client_busy:.0%} busy"
        )


def trivial_page(loop: Loop, cpus: set[int], seconds: float) -> Load:
    """The yardstick, with as many connections as there are senders."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load.trivial_page", str(port)], cwd=CHECKOUT
    )
    try:
        os.sched_setaffinity(process.pid, cpus)
        connections = _connect_when_up(loop, port, SENDERS)
        page = request("GET", "/")
        return _closed_loop(loop, connections, [page] * SENDERS, [process.pid], seconds)
    finally:
        process.kill()
        process.wait()


def measure(population: Population, members: list[Account], seconds: float) -> list[Load]:
    """The loads of `NAMES`: senders in rooms of their own, in one room, in that of all members."""
    rooms = population.rooms(members[:SENDERS])
    chat = population.group(members[:FEW])
    group = population.group(members)
    cases = [list(zip(members, rooms[:count], strict=False)) for count in (SENDERS, FEW, 1)]
    cases.append([(member, chat) for member in members[:FEW]])
    cases.append([(member, group) for member in members[:SENDERS]])
    return [send(population, case, population.message, seconds) for case in cases]


def figures(loads: list[Load], page: Load) -> list[Figure]:
    """The rows of the table."""
    targets = (1500, 1200, 500, None, None)
    rows = [
        Figure("trivial page, requests", page.rate, "/s", note=page.note()),
        Figure("trivial page, CPU", page.cpu_seconds * 1e6, "µs/request"),
    ]
    for name, target, load in zip(NAMES, targets, loads, strict=True):
        rows.append(Figure(f"messages, {name}", load.rate, "/s", target, note=load.note()))
    for name, load in zip(NAMES, loads, strict=True):
        median = statistics.median(load.latencies) * 1000
        rows.append(Figure(f"acknowledged, {name}", median, "ms", note="median"))
    for name, target, load in zip(NAMES, (10, None, None, None, None), loads, strict=True):
        relative = load.cpu_seconds / page.cpu_seconds
        note = f"{load.cpu_seconds * 1e6:.0f} µs with the database's"
        rows.append(Figure(f"CPU, {name}", relative, "pages", target, at_most=True, note=note))
    return rows


def send(
    population: Population,
    senders: list[tuple[Account, str]],
    make: Callable[[Account, str], bytes],
    seconds: float,
) -> Load:
    """The load of senders, each in a room; `make` makes the request of another message."""
    port = population.server.port
    connections = [HttpConnection(population.loop, port) for _ in senders]
    requests = [_Messages(make, account, room) for account, room in senders]
    pids = population.server.process_ids()
    return _closed_loop(population.loop, connections, requests, pids, seconds)


class _Messages:
    """Makes a new request with each `bytes(messages)`."""

    def __init__(self, make: Callable[[Account, str], bytes], sender: Account, room: str) -> None:
        self._make = make
        self._sender = sender
        self._room = room

    def __bytes__(self) -> bytes:
        return self._make(self._sender, self._room)


def _closed_loop(
    loop: Loop,
    connections: list[HttpConnection],
    requests: Iterable[bytes | _Messages],
    pids: list[int],
    seconds: float,
) -> Load:
    latencies: list[float] = []
    running = True

    def script(source: bytes | _Messages) -> Script:
        while running:
            start = time.perf_counter()
            status, body = yield bytes(source)
            latencies.append(time.perf_counter() - start)
            if status != 200:
                raise LoadFailed(f"{status} {body[:300]!r}")

    for connection, source in zip(connections, requests, strict=True):
        connection.run(script(source))
    loop.run_for(WARM_UP_SECONDS)
    latencies.clear()
    cpu, own, start = cpu_seconds(pids), time.process_time(), time.perf_counter()
    loop.run_for(seconds)
    elapsed = time.perf_counter() - start
    used, own = cpu_seconds(pids) - cpu, time.process_time() - own
    measured = list(latencies)
    running = False
    loop.run(lambda: not any(connection.busy for connection in connections), 10)
    for connection in connections:
        connection.close()
    count = len(measured)
    return Load(count / elapsed, used / count, measured, own / elapsed)


def _connect_when_up(loop: Loop, port: int, count: int) -> list[HttpConnection]:
    deadline = time.perf_counter() + 10
    while True:
        try:
            return [HttpConnection(loop, port) for _ in range(count)]
        except ConnectionRefusedError:
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.05)
