"""The cost of a message by the number of servers in its room, all of which receive it.

The servers are scripted ones, in this process, each with its own address and key.
"""

import time
from pathlib import Path

from benchmarks.growth.curves import Curve
from benchmarks.growth.measures import CPU_ENOUGH, MAX_SECONDS, sizes
from benchmarks.load.processes import cpu_seconds
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import run, together
from tests.support.sites import LOCAL, Scene, Site
from tests.support.watcher import Watcher

MINUTES = 60.0
MESSAGES = 5  # before it is checked whether it was long enough


def by_destinations(directory: Path, most: int, cpus: set[int]) -> list[Curve]:
    """A room with more and more servers."""
    authority = CertificateAuthority(directory)
    place = directory / "site"
    place.mkdir(mode=0o755)
    site = Site(LOCAL, place, authority, authority.issue(), directly=True, cpus=cpus)
    site.program.start()
    try:
        return run(_measured(site, authority, most), 60 * MINUTES)  # type: ignore[arg-type]
    finally:
        site.close()


async def _measured(site: Site, authority: CertificateAuthority, most: int) -> list[Curve]:
    message = Curve("servers of a room", "a message, until all have it", 1)
    scene = Scene(site, site, authority)
    alice = await scene.user(site, "alice")
    room = await alice.create_room(room_version="11", public=True)
    fakes: list[FakeServer] = []
    for size in sizes(most):
        while len(fakes) < size:
            fake = FakeServer(authority)
            await fake.start()
            fakes.append(fake)
            await fake.join(site.name, room, fake.user("bob"))
        message.add(size, await _cost(site, alice, room, fakes))
    for fake in fakes:
        await fake.stop()
    await scene.close()
    return [message]


async def _cost(site: Site, alice: Watcher, room: str, fakes: list[FakeServer]) -> float:
    await _say(alice, room, fakes)
    pids = [site.program.pid]
    count, before, start = 0, cpu_seconds(pids), time.perf_counter()
    while True:
        for _ in range(MESSAGES):
            await _say(alice, room, fakes)
        count += MESSAGES
        used = cpu_seconds(pids) - before
        if used >= CPU_ENOUGH or time.perf_counter() - start > MAX_SECONDS:
            return used / count


async def _say(alice: Watcher, room: str, fakes: list[FakeServer]) -> None:
    event_id = await alice.say(room, "hello")
    await together(*(fake.hears(event_id) for fake in fakes))
    for fake in fakes:
        fake.received.clear()
