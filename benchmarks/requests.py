"""The server's CPU time for requests that do next to nothing, and for long polls.

What is left of a request without its work: to read and parse it, to find its route and its user, to
respond. A long poll is renewed by its client as soon as it was answered; the figures include the
answer and the next request. The idle time of a quiet server is subtracted: its background work is
not that of the polls.
"""

import time
from collections.abc import Callable

from benchmarks.delivery import Group
from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Script, request
from benchmarks.load.population import CLIENT, Account, Population, poll, take_next_batch

CONNECTIONS = 16
EXPIRING_MS = 1_000
QUIET_INTERVAL = 0.5  # seconds between messages
NO_DATABASE = "of the server, without its database's"


def measure(population: Population, members: list[Account], seconds: float) -> list[Figure]:
    """The rows of the table."""
    whoami = [request("GET", f"{CLIENT}/account/whoami", member.token) for member in members]
    population.sync(members)
    expired = [poll(member, 0) for member in members]
    figures = [
        _row("a trivial request, one client, CPU", _closed_loop(population, whoami, 1, seconds)),
        _row("a trivial request, CPU", _closed_loop(population, whoami, CONNECTIONS, seconds)),
        _row("a sync without news, CPU", _closed_loop(population, expired, CONNECTIONS, seconds)),
    ]
    idle = _cpu_share(population, seconds)
    figures.append(Figure("a quiet server, CPU", idle * 100, "% of a core"))
    figures.append(_row("a long poll that ends, CPU", _expiring(population, members, idle)))
    group = Group(population, members, population.group(members))
    group.poll(members)
    group.closed_loop(0.5)
    for name, interval in (("busy", 0.0), ("quiet", QUIET_INTERVAL)):
        used = _delivered(population, group, seconds, interval, idle if interval else 0.0)
        figures.append(_row(f"a long poll that gets a message, {name} server, CPU", used))
    group.close()
    return figures


def _row(name: str, cpu: float) -> Figure:
    return Figure(name, cpu * 1e6, "µs", note=NO_DATABASE)


def _closed_loop(
    population: Population, requests: list[bytes], connections: int, seconds: float
) -> float:
    """CPU seconds of a request, when each client sends the next one after the response."""
    count = 0

    def script(own: list[bytes]) -> Script:
        nonlocal count
        while True:
            for one in own:
                status, body = yield one
                if status != 200:
                    raise LoadFailed(f"{status} {body[:300]!r}")
                count += 1

    clients = [HttpConnection(population.loop, population.server.port) for _ in range(connections)]
    for number, client in enumerate(clients):
        client.run(script(requests[number::connections][:1]))
    population.loop.run_for(0.5)
    cpu, before = cpu_clock(population.server.pid), count
    population.loop.run_for(seconds)
    used = cpu_clock(population.server.pid) - cpu
    for client in clients:
        client.close()
    return used / (count - before)


def _cpu_share(population: Population, seconds: float) -> float:
    """The share of a core that the server uses while nobody wants anything."""
    cpu, start = cpu_clock(population.server.pid), time.perf_counter()
    population.loop.run_for(seconds)
    return (cpu_clock(population.server.pid) - cpu) / (time.perf_counter() - start)


def _expiring(population: Population, members: list[Account], idle: float) -> float:
    """CPU seconds of a long poll that ends without news, 100 of them a second."""
    count = 0

    def script(member: Account) -> Script:
        nonlocal count
        while True:
            _, body = yield poll(member, EXPIRING_MS)
            take_next_batch(member, body)
            count += 1

    clients = [HttpConnection(population.loop, population.server.port) for _ in members]
    for client, member in zip(clients, members, strict=True):
        client.run(script(member))
    population.loop.run_for(1.5)
    before = count
    used = _used(population, idle, lambda: population.loop.run_for(4.0))
    for client in clients:
        client.close()
    return used / (count - before)


def _delivered(
    population: Population, group: Group, seconds: float, interval: float, idle: float
) -> float:
    """CPU seconds of a long poll that is answered with a message and renewed."""
    count = 0

    def deliver() -> None:
        nonlocal count
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            group.deliver()
            count += 1
            population.loop.run_for(interval)

    return _used(population, idle, deliver) / (count * len(group.members))


def _used(population: Population, idle: float, work: Callable[[], None]) -> float:
    cpu, start = cpu_clock(population.server.pid), time.perf_counter()
    work()
    elapsed = time.perf_counter() - start
    return cpu_clock(population.server.pid) - cpu - idle * elapsed


def cpu_clock(pid: int) -> float:
    """CPU time of a process, in seconds: the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)
