"""Pushes: messages in a group whose members are all away, each with a phone.

The gateway is a process that accepts everything at once, on the core of the load. A group in which
everybody has muted the room shows what the decision costs.
"""

import time
from urllib.parse import quote

from benchmarks import sending
from benchmarks.load.fast_receiver import fast_receiver, received
from benchmarks.load.figures import Figure
from benchmarks.load.loop import request
from benchmarks.load.population import CLIENT, Account, Population, post
from benchmarks.load.processes import cpu_seconds
from tests.support.process import free_port

OVERRIDES = {
    "log": {"level": "WARN"},
    "rate_limits": {"enabled": False},
    "outbound_http": {"allow_private_addresses": True},
}
MEMBERS = 100
MESSAGES = 1_000
SENDERS = 10
SECONDS = 5.0
MAX_AHEAD = 20  # messages whose pushes have not been handed over
WARM_UP = 30  # messages
IDLE_SECONDS = 2.0


def measure(population: Population, size: float) -> list[Figure]:
    """The figures of the part."""
    messages = max(int(MESSAGES * size), 50)
    port = free_port()
    with fast_receiver(port):
        return _Run(population, messages, port).figures()


class _Run:
    def __init__(self, population: Population, messages: int, gateway_port: int) -> None:
        self._population = population
        self._messages = messages
        self._port = gateway_port
        self._pids = population.server.process_ids()
        self._members = population.accounts(MEMBERS)

    def figures(self) -> list[Figure]:
        """Send the messages without pushers, then muted, then with pushers."""
        group, muted = [self._population.group(self._members) for _ in range(2)]
        self._mute(muted)
        senders = [(member, muted) for member in self._members[:SENDERS]]
        plain = sending.send(
            self._population, senders, self._population.message, SECONDS
        ).cpu_seconds
        self._set_pushers()
        decided = sending.send(
            self._population, senders, self._population.message, SECONDS
        ).cpu_seconds
        self._read(group)
        pushed, elapsed = self._send(group, MEMBERS - 1)
        pushes = self._messages * (MEMBERS - 1)
        each = pushed / (MEMBERS - 1)  # with the share of the message
        decision = (decided / plain - 1) * 100
        before = cpu_seconds(self._pids)
        time.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(self._pids) - before) / IDLE_SECONDS * 100
        return [
            Figure("pushes handed over, one core", 1 / each, "/s", 3_000, note=_micros(each)),
            Figure("pushes handed over, as measured", pushes / elapsed, "/s"),
            Figure("a message without pushers, 10 senders, CPU", plain * 1e6, "µs"),
            Figure("the decision for 100 members", decision, "%", 20, at_most=True),
            Figure("100 idle pushers, of a core", idle, "%"),
        ]

    def _send(self, room: str, pushes: int) -> tuple[float, float]:
        """CPU seconds of a message with its pushes, and the seconds that all of them took."""
        self._deliver(room, WARM_UP, pushes)
        cpu, start = cpu_seconds(self._pids), time.perf_counter()
        self._deliver(room, self._messages, pushes)
        elapsed = time.perf_counter() - start
        return (cpu_seconds(self._pids) - cpu) / self._messages, elapsed

    def _deliver(self, room: str, messages: int, pushes: int) -> None:
        sender = self._members[0]
        start = self._accepted()
        for sent in range(1, messages + 1):
            self._population.fetch([self._population.message(sender, room)], 1)
            while pushes and self._accepted() - start < (sent - MAX_AHEAD) * pushes:
                time.sleep(0.001)
        while pushes and self._accepted() - start < messages * pushes:
            time.sleep(0.001)

    def _accepted(self) -> int:
        return received(self._population.loop, self._port)[0]

    def _read(self, room: str) -> None:
        message = self._population.message(self._members[0], room)
        event_id = self._population.fetch([message])[0]["event_id"]
        path = f"{CLIENT}/rooms/{quote(room)}/receipt/m.read/{quote(event_id)}"
        self._population.fetch([post(path, member.token, {}) for member in self._members])

    def _set_pushers(self) -> None:
        url = f"http://127.0.0.1:{self._port}/_matrix/push/v1/notify"
        self._population.fetch([_pusher(member, url) for member in self._members])

    def _mute(self, room: str) -> None:
        path = f"{CLIENT}/pushrules/global/room/{quote(room)}"
        body = b'{"actions":[]}'
        self._population.fetch(
            [request("PUT", path, member.token, body) for member in self._members]
        )


def _pusher(member: Account, url: str) -> bytes:
    body = {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": f"key of {member.user_id}",
        "app_display_name": "Example",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": url, "format": "event_id_only"},
    }
    return post(f"{CLIENT}/pushers/set", member.token, body)


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs each, with the database's"
