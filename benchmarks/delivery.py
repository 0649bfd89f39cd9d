"""Deliveries from a sender to readers: their rate, and the time until the last reader has one.

A delivery is one message received by one reader. In the closed loop the next message is sent when
the last reader has the one before, so no response can hold several messages; a second figure, with
ten senders at full speed, shows the rate where responses may. A change of presence is measured as a
message is.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from urllib.parse import quote

from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Script, request
from benchmarks.load.population import (
    CLIENT,
    MARK,
    Account,
    Population,
    poll,
    take_next_batch,
)
from benchmarks.load.processes import cpu_seconds
from benchmarks.websocket import WebSocket

POLL_MS = 60_000
CALM_SECONDS = 1.0
GIVE_UP_SECONDS = 30.0
TEN = 10
PRESENCE_CHANGES = 50
CHANGES = itertools.count()  # no two changes of presence are the same
NO_DATABASE = "of the server, without its database's"


class DeliveryCount:
    """Counts deliveries against what was sent."""

    def __init__(self) -> None:
        self.delivered = 0
        self.expected = 0

    def count(self, payload: bytes) -> None:
        """Count the messages in what a reader received."""
        self.delivered += payload.count(MARK)

    def complete(self) -> bool:
        """Whether each reader has received everything."""
        return self.delivered >= self.expected


class Group:
    """A room, its readers, and one connection for its senders.

    `deliver` sends one message, or makes one request that all readers are to learn of, and waits
    until each of them has.
    """

    def __init__(self, population: Population, members: list[Account], room: str) -> None:
        self.population = population
        self.members = members
        self.room = room
        self.deliveries = DeliveryCount()
        self._readers: list[HttpConnection | WebSocket] = []
        self._sender = HttpConnection(population.loop, population.server.port)

    def poll(self, readers: list[Account]) -> None:
        """Have readers long-poll from now on."""
        self.population.sync(readers)
        for reader in readers:
            connection = HttpConnection(self.population.loop, self.population.server.port)
            connection.run(self._poll(reader))
            self._readers.append(connection)
        self.settle()

    def open_sockets(self, readers: list[Account]) -> None:
        """Have readers hold a WebSocket from now on."""
        port, loop = self.population.server.port, self.population.loop
        since = self.population.present()
        for reader in readers:
            self._readers.append(WebSocket(loop, port, reader.token, self.deliveries.count, since))
        self.settle()

    def deliver(self, request_bytes: bytes | None = None) -> float:
        """Seconds from sending a message until the last reader has it."""
        self.deliveries.expected += len(self._readers)
        start = time.perf_counter()
        self._sender.run(self._once(request_bytes or self._next_message(self.members[0])))
        if not self.population.loop.run(self.deliveries.complete, GIVE_UP_SECONDS):
            missing = self.deliveries.expected - self.deliveries.delivered
            raise LoadFailed(f"{missing} readers did not get a message")
        elapsed = time.perf_counter() - start
        self.population.loop.run(lambda: not self._sender.busy, GIVE_UP_SECONDS)
        return elapsed

    def closed_loop(self, seconds: float) -> tuple[float, float]:
        """When the next message waits for the last reader: deliveries a second, and CPU seconds.

        The CPU seconds are those of the server, without its database's, for one message.
        """
        pids = [self.population.server.pid]
        count, cpu, start = 0, cpu_seconds(pids), time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.deliver()
            count += 1
        elapsed, used = time.perf_counter() - start, cpu_seconds(pids) - cpu
        return count * len(self._readers) / elapsed, used / count

    def presence(self, count: int) -> tuple[float, float]:
        """The members change their presence in turn: median seconds until all know, CPU seconds.

        A user who changes it twice within a second would wait for the end of that.
        """
        pids = [self.population.server.pid]
        delays, cpu = [], cpu_seconds(pids)
        for _ in range(count):
            change = next(CHANGES)
            user = self.members[change % len(self.members)]
            path = f"{CLIENT}/presence/{quote(user.user_id)}/status"
            body = {"presence": "online", "status_msg": f"{MARK.decode()} {change}"}
            put = request("PUT", path, user.token, json.dumps(body).encode())
            delays.append(self.deliver(put))
        return statistics.median(delays), (cpu_seconds(pids) - cpu) / count

    def full_speed(self, seconds: float) -> float:
        """Deliveries a second when ten members send as fast as they are acknowledged."""
        port, loop = self.population.server.port, self.population.loop
        senders = [HttpConnection(loop, port) for _ in range(TEN)]
        before, start = self.deliveries.delivered, time.perf_counter()
        deadline = start + seconds
        for sender, member in zip(senders, self.members, strict=False):
            sender.run(self._send_until(member, deadline))
        loop.run_for(seconds)
        loop.run(lambda: not any(sender.busy for sender in senders), GIVE_UP_SECONDS)
        if not loop.run(self.deliveries.complete, GIVE_UP_SECONDS):
            raise LoadFailed("some readers did not get all messages")
        elapsed = time.perf_counter() - start
        for sender in senders:
            sender.close()
        return (self.deliveries.delivered - before) / elapsed

    def median_delay(self, count: int, interval: float) -> float:
        """Median seconds until the last reader has a message, one sent each `interval` seconds."""
        delays = []
        for _ in range(count):
            delays.append(self.deliver())
            self.population.loop.run_for(max(0.0, interval - delays[-1]))
        return statistics.median(delays)

    def close(self) -> None:
        """Close the connections of the readers and of the sender."""
        for connection in [*self._readers, self._sender]:
            connection.close()

    def settle(self) -> None:
        """Let what is on its way arrive, and begin to count."""
        self.population.loop.run_for(CALM_SECONDS)
        self.deliveries.delivered = self.deliveries.expected = 0

    def _poll(self, reader: Account) -> Script:
        while True:
            status, body = yield poll(reader, POLL_MS)
            if status != 200:
                raise LoadFailed(f"{status} {body[:300]!r}")
            take_next_batch(reader, body)
            self.deliveries.count(body)

    def _next_message(self, sender: Account) -> bytes:
        return self.population.message(sender, self.room)

    def _once(self, request_bytes: bytes) -> Script:
        status, body = yield request_bytes
        if status != 200:
            raise LoadFailed(f"{status} {body[:300]!r}")

    def _send_until(self, sender: Account, deadline: float) -> Script:
        while time.perf_counter() < deadline:
            self.deliveries.expected += len(self._readers)
            yield from self._once(self._next_message(sender))


def measure(population: Population, members: list[Account], seconds: float) -> list[Figure]:
    """The rows of the table."""
    room = population.group(members)
    figures = []
    for kind, listen, rate, delay in (
        ("long polls", Group.poll, 5000, 40),
        ("WebSockets", Group.open_sockets, 20000, None),
    ):
        readers = f"{len(members)} {kind}"
        group = Group(population, members, room)
        listen(group, members)
        deliveries, cpu = group.closed_loop(seconds)
        figures += [
            Figure(f"deliveries, {readers}, one by one", deliveries, "/s", rate),
            Figure(f"a message to {readers}, CPU", cpu * 1000, "ms", note=NO_DATABASE),
            Figure(f"deliveries, {readers}, 10 senders", group.full_speed(seconds), "/s"),
            _delay(f"last of {readers}, 5 messages/s", group, 25, 0.2, delay),
            *_presence(group, readers),
        ]
        group.close()
    return figures + _one_to_one(population)


def _presence(group: Group, readers: str) -> list[Figure]:
    group.settle()
    delay, cpu = group.presence(PRESENCE_CHANGES)
    note = f"median of {PRESENCE_CHANGES}"
    return [
        Figure(f"a change of presence to {readers}, CPU", cpu * 1000, "ms", note=NO_DATABASE),
        Figure(f"last of {readers} to learn of it", delay * 1000, "ms", note=note),
    ]


def _one_to_one(population: Population) -> list[Figure]:
    figures = []
    readers: list[tuple[str, Callable[[Group, list[Account]], None]]] = [
        ("long poll", Group.poll),
        ("WebSocket", Group.open_sockets),
    ]
    for name, listen in readers:
        pair = population.accounts(2)
        chat = Group(population, pair, population.group(pair))
        listen(chat, pair[1:])
        figures.append(_delay(f"1:1 send to delivery, {name}", chat, 60, 0.05, 5))
        chat.close()
    return figures


def _delay(name: str, group: Group, count: int, interval: float, target: float | None) -> Figure:
    delay = group.median_delay(count, interval)
    return Figure(name, delay * 1000, "ms", target, at_most=True, note=f"median of {count}")
