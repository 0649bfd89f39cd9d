"""Traffic between servers: `python -m benchmarks.federation [PART…]`.

First two instances of this server, over TLS: the time that a message takes from one to the other,
and the time in which one that was stopped catches up. Then ten scripted servers that flood one
instance, which has one core for itself and its database; their events are made and signed before
the clock runs. Last, a room of 10,000 members that is joined (`benchmarks/large_join.py`).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred

import benchmarks.large_join
from benchmarks.load.figures import Figure, table
from benchmarks.load.processes import cpu_seconds
from homeserver.protocol.events import Event
from tests.federation.shared_rooms import shared_room
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import in_thread, pause, run, together
from tests.support.sites import LOCAL, Scene, Site
from tests.support.watcher import Watcher

PARTS = ("latency", "catch_up", "flood", "large_join")
MESSAGES = 100
ROOMS = 100
MISSED = 10_000
SENDING = 32  # messages of those missed that are sent at once
SERVERS = 10
EVENTS_EACH = 1_000
TRANSACTION_EVENTS = 50  # the most that a transaction may have
MINUTES = 60.0


class Servers:
    """The servers of a benchmark, in one directory."""

    def __init__(self, directory: Path, authority: CertificateAuthority) -> None:
        self._directory = directory
        self.authority = authority
        self._certificate = authority.issue()
        self.sites: list[Site] = []

    def start(self, cpus: set[int] | None = None) -> Site:
        """Start another instance of this server."""
        directory = self._directory / f"site{len(self.sites)}"
        directory.mkdir(mode=0o755)
        site = Site(LOCAL, directory, self.authority, self._certificate, directly=True, cpus=cpus)
        self.sites.append(site)
        site.program.start()
        return site

    def close(self) -> None:
        """Stop all of them and remove their data."""
        for site in self.sites:
            site.close()


async def latency(servers: Servers) -> list[Figure]:
    """The time from sending a message until a waiting /sync of the other server responds."""
    scene = Scene(servers.start(), servers.start(), servers.authority)
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)
    taken = [await _delay(room, alice, bob) for _ in range(MESSAGES)]
    await scene.close()
    median = statistics.median(taken) * 1000
    slow = sorted(taken)[len(taken) * 99 // 100] * 1000
    name = "a message to another server, until /sync responds there"
    return [Figure(name, median, "ms", 25, at_most=True, note=f"median; 99 % {slow:.1f} ms")]


async def _delay(room: str, alice: Watcher, bob: Watcher) -> float:
    await bob.look()
    waiting = Deferred.fromCoroutine(bob.look(10_000))
    await pause(0.02)  # until the poll has arrived
    start = time.perf_counter()
    sent = Deferred.fromCoroutine(alice.say(room, "hello"))
    await waiting
    taken = time.perf_counter() - start
    await bob.hears(room, await sent)
    return taken


async def catch_up(servers: Servers) -> list[Figure]:
    """The time in which a server catches up that was stopped while messages were sent."""
    first, second = servers.start(), servers.start()
    scene = Scene(first, second, servers.authority)
    alice, bob = await scene.alice_and_bob()
    rooms = [await alice.create_room(public=True) for _ in range(ROOMS)]
    for room in rooms:
        await bob.join(room, via=[first.name])
    await scene.kill(second)
    waiting = [rooms[number % ROOMS] for number in range(MISSED)]
    last: dict[str, str] = {}

    async def keep_sending() -> None:
        while waiting:
            room = waiting.pop()
            last[room] = await alice.say(room, f"{len(waiting)}")

    await together(*(keep_sending() for _ in range(SENDING)))
    await in_thread(second.program.start)
    start = time.perf_counter()
    await bob.say(rooms[0], "back online")
    for room in rooms:
        await bob.hears(room, last[room])
    newest = time.perf_counter() - start
    start = time.perf_counter()
    missed = 0
    for room in rooms:
        missed += sum(event["type"] == "m.room.message" for event in await bob.history(room))
    whole = time.perf_counter() - start
    await scene.close()
    name = f"{MISSED:,} messages missed in {ROOMS} rooms"
    return [
        Figure(f"{name}: all rooms up to date", newest, "s"),
        Figure(f"{name}: all of them read", whole, "s", note=f"{missed:,} shown"),
    ]


async def flood(servers: Servers) -> list[Figure]:
    """The rate of events from ten servers, in a room of each and in one shared room."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    site = servers.start({cores[0]})
    scene = Scene(site, site, servers.authority)
    fakes = [FakeServer(servers.authority) for _ in range(SERVERS)]
    for fake in fakes:
        await fake.start()
    alice = await scene.user(site, "alice")
    figures = [
        await _flooded("in a room of each", site, fakes, await _own_rooms(alice, fakes)),
        await _flooded("in one room", site, fakes, await _one_room(alice, site, fakes)),
    ]
    for fake in fakes:
        await fake.stop()
    await scene.close()
    return figures


async def _own_rooms(alice: Watcher, fakes: Sequence[FakeServer]) -> list[list[Event]]:
    floods = []
    for fake in fakes:
        room = fake.create_room("11")
        await alice.join(room.room_id, via=[fake.name])
        sender = fake.user("mallory")
        floods.append([room.say(sender, f"{number}") for number in range(EVENTS_EACH)])
    return floods


async def _one_room(alice: Watcher, site: Site, fakes: Sequence[FakeServer]) -> list[list[Event]]:
    room_id = await alice.create_room(room_version="11", public=True)
    floods = []
    for fake in fakes:
        sender = fake.user("mallory")
        room = await fake.join(site.name, room_id, sender)
        floods.append([room.say(sender, f"{number}") for number in range(EVENTS_EACH)])
    return floods


async def _flooded(
    where: str, site: Site, fakes: Sequence[FakeServer], floods: Sequence[list[Event]]
) -> Figure:
    async def send(fake: FakeServer, events: list[Event]) -> None:
        for at in range(0, len(events), TRANSACTION_EVENTS):
            status, response = await fake.send(site.name, events[at : at + TRANSACTION_EVENTS])
            assert status == 200, response
            assert all("error" not in result for result in response["pdus"].values()), response

    pids = [site.program.pid]
    cpu, start = cpu_seconds(pids), time.perf_counter()
    await together(*(send(fake, events) for fake, events in zip(fakes, floods, strict=True)))
    taken = time.perf_counter() - start
    count = sum(map(len, floods))
    spent = (cpu_seconds(pids) - cpu) / count * 1e6
    name = f"flood of {SERVERS} servers {where}"
    return Figure(
        name, count / taken, "/s", 500, note=f"{spent:.0f} µs of CPU, database not counted"
    )


async def large_join(servers: Servers) -> list[Figure]:
    """Joining a room of 10,000 members through an old member's server and through a new one's."""
    scene = Scene(servers.start(), servers.start(), servers.authority)
    figures = await benchmarks.large_join.measure(scene, servers.authority)
    await scene.close()
    return figures


MEASURES: dict[str, Callable[[Servers], Awaitable[list[Figure]]]] = {
    "latency": latency,
    "catch_up": catch_up,
    "flood": flood,
    "large_join": large_join,
}


def main() -> int:
    """Run the parts that were named and print one table; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federation", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - {*PARTS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="homeserver-benchmark-") as directory:
            Path(directory).chmod(0o755)
            servers = Servers(Path(directory), CertificateAuthority(Path(directory)))
            try:
                figures += run(MEASURES[part](servers), 30 * MINUTES)  # type: ignore[arg-type]
            finally:
                servers.close()
        print(table(figures), file=sys.stderr, flush=True)
    print(f"\n{table(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
