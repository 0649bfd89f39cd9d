"""Profiles in `/sync`: what a change of a status costs, and messages to clients that ask for it.

A group of a hundred, of whom all but one long-poll: first without asking for profiles, then with a
filter that does. A change or a message is made when the last reader has the one before.
"""

import json
from urllib.parse import quote

from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Script, request
from benchmarks.load.population import CLIENT, MARK, Account, Population, take_next_batch
from benchmarks.load.processes import cpu_seconds

MEMBERS = 100
POLL_MS = 60_000
GIVE_UP_SECONDS = 30.0
SETTLE_SECONDS = 1.0
# Presence would wake the readers, too.
OVERRIDES = {
    "log": {"level": "WARN"},
    "rate_limits": {"enabled": False},
    "presence": {"enabled": False},
}
FIELD = "org.example.status"
WANTED = json.dumps({"profile_fields": {"ids": [FIELD]}})


class Readers:
    """The pollers of a group; `received` counts the marked changes and messages that they got."""

    def __init__(self, population: Population, group: list[Account], wanted: str) -> None:
        self.received = 0
        self._population = population
        self._wanted = quote(wanted)
        population.sync(group)
        self._connections = []
        for reader in group:
            connection = HttpConnection(population.loop, population.server.port)
            connection.run(self._poll(reader))
            self._connections.append(connection)
        population.loop.run_for(SETTLE_SECONDS)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _poll(self, reader: Account) -> Script:
        while True:
            path = f"{CLIENT}/sync?timeout={POLL_MS}&since={reader.since}&filter={self._wanted}"
            status, body = yield request("GET", path, reader.token)
            if status != 200:
                raise LoadFailed(f"{status} {body[:300]!r}")
            take_next_batch(reader, body)
            self.received += body.count(MARK)


def measure(population: Population, size: float) -> list[Figure]:
    """The rows of the table."""
    rounds = max(int(300 * size), 20)
    group = population.accounts(MEMBERS)
    room = population.group(group)
    figures = []
    for name, wanted in (("did not ask", "{}"), ("asked", WANTED)):
        readers = Readers(population, group[1:], wanted)
        expected = MEMBERS - 1 if wanted == WANTED else 0
        changes = [_status(group[0], number) for number in range(rounds)]
        used = _cpu(population, readers, changes, expected)
        figures.append(Figure(f"a status, 99 readers who {name}, CPU", used * 1e6, "µs"))
        messages = [population.message(group[0], room) for _ in range(rounds)]
        used = _cpu(population, readers, messages, MEMBERS - 1)
        figures.append(Figure(f"a message, 99 readers who {name}, CPU", used * 1e6, "µs"))
        readers.close()
    return figures


def _status(user: Account, number: int) -> bytes:
    body = json.dumps({FIELD: f"{MARK.decode()} {number}"}).encode()
    return request("PUT", f"{CLIENT}/profile/{quote(user.user_id)}/{FIELD}", user.token, body)


def _cpu(population: Population, readers: Readers, requests: list[bytes], expected: int) -> float:
    """The CPU seconds of a request after which each of `expected` readers has one more."""
    pids, loop = population.server.process_ids(), population.loop
    before = cpu_seconds(pids)
    for each in requests:
        total = readers.received + expected
        population.fetch([each], 1)
        if not loop.run(lambda total=total: readers.received >= total, GIVE_UP_SECONDS):
            raise LoadFailed(f"{total - readers.received} readers received nothing")
    return (cpu_seconds(pids) - before) / len(requests)
