"""Presence: the server's CPU time while many users are online, and for each change of presence.

All users share a large room, so every change is sent to all connected users.
"""

import json
import statistics
import time
from urllib.parse import quote

from benchmarks.large import LargeResponses
from benchmarks.load.figures import Figure
from benchmarks.load.loop import request
from benchmarks.load.population import CLIENT, Account, Population
from benchmarks.load.processes import cpu_seconds
from benchmarks.websocket import WebSocket

CONNECTED = 500
IDLE_SECONDS = 10.0
CHANGES = 20
BURST = 100
GIVE_UP_SECONDS = 60.0
MARK = b'"status_msg":"'
ONLY_PRESENCE = {"room": {"rooms": []}, "account_data": {"types": []}}


class Watchers:
    """Connected members of the large room, who count the changes of presence that they receive."""

    def __init__(self, population: Population, accounts: list[Account]) -> None:
        self.received = 0
        self.frames = 0
        self._loop = population.loop
        since = population.present()
        self._sockets = [
            WebSocket(population.loop, population.server.port, account.token, self._receive, since)
            for account in accounts
        ]

    def rest(self) -> None:
        """Wait until nothing has arrived for a second, and begin to count."""
        while True:
            before = self.frames
            self._loop.run_for(1.0)
            if self.frames == before:
                break
        self.received = self.frames = 0

    def wait(self, expected: int) -> bool:
        """Wait until they have received so many changes in all; False after `GIVE_UP_SECONDS`."""
        return self._loop.run(lambda: self.received >= expected, GIVE_UP_SECONDS)

    def close(self) -> None:
        """Close all connections."""
        for socket in self._sockets:
            socket.close()

    def _receive(self, payload: bytes) -> None:
        self.frames += 1
        self.received += payload.count(MARK)


def measure(population: Population, members: list[Account]) -> list[Figure]:
    """The rows of the table; all `members` share a room."""
    come = [_put_presence(member, "online", "here") for member in members]
    pids = [population.server.pid]
    cpu = cpu_seconds(pids)
    population.fetch(come)
    coming = (cpu_seconds(pids) - cpu) / len(members)
    figures = [
        Figure("a user comes online, CPU", coming * 1e6, "µs", note="no user is connected"),
        _idle(population, f"CPU with {len(members):,} online, none connected"),
    ]
    responses = LargeResponses(population)
    path = f"{CLIENT}/sync?filter={quote(json.dumps(ONLY_PRESENCE))}&set_presence=offline"
    responses.get(f"sync with the presence of {len(members):,}", members[-1], path)
    watchers = Watchers(population, members[:CONNECTED])
    watchers.rest()
    connected = min(CONNECTED, len(members))
    figures.append(_idle(population, f"CPU with {len(members):,} online, {connected} connected"))
    figures += responses.finish()
    figures += _changes(population, watchers, members[-1], connected)
    figures += _burst(population, watchers, members[-BURST:], connected)
    watchers.close()
    return figures


def _idle(population: Population, name: str) -> Figure:
    pids = population.server.process_ids()
    cpu, start = cpu_seconds(pids), time.perf_counter()
    population.loop.run_for(IDLE_SECONDS)
    share = (cpu_seconds(pids) - cpu) / (time.perf_counter() - start)
    return Figure(name, share * 100, "%", 1, at_most=True, note="of one core, with the database's")


def _changes(
    population: Population, watchers: Watchers, user: Account, connected: int
) -> list[Figure]:
    """One user changes again and again, and each change is sent to all connected users."""
    delays, pids = [], [population.server.pid]
    watchers.received = 0
    cpu = cpu_seconds(pids)
    for number in range(CHANGES):
        start = time.perf_counter()
        population.fetch([_put_presence(user, "online", f"change {number}")])
        watchers.wait((number + 1) * connected)
        delays.append(time.perf_counter() - start)
    used = (cpu_seconds(pids) - cpu) / CHANGES
    note = f"{used / connected * 1e6:.0f} µs for each recipient"
    last = statistics.median(delays) * 1000
    return [
        Figure(f"a change sent to {connected}, CPU", used * 1000, "ms", note=note),
        Figure(f"last of {connected} to receive a change", last, "ms", note=f"median of {CHANGES}"),
    ]


def _burst(
    population: Population, watchers: Watchers, users: list[Account], connected: int
) -> list[Figure]:
    """Many users change at the same time: changes sent together cost less."""
    watchers.rest()
    pids = [population.server.pid]
    cpu = cpu_seconds(pids)
    population.fetch([_put_presence(user, "online", "all at once") for user in users], len(users))
    watchers.wait(len(users) * connected)
    used = (cpu_seconds(pids) - cpu) / len(users)
    frames = watchers.frames / connected
    note = f"{len(users)} changes in {frames:.1f} updates"
    return [Figure(f"a change of many sent to {connected}, CPU", used * 1000, "ms", note=note)]


def _put_presence(user: Account, state: str, status: str) -> bytes:
    path = f"{CLIENT}/presence/{quote(user.user_id)}/status"
    body = json.dumps({"presence": state, "status_msg": status}).encode()
    return request("PUT", path, user.token, body)
