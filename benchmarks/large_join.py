"""Joining a large room through another instance of this server; part of `benchmarks.federation`.

The members are of a third server, a scripted one, so that they are made quickly. The first instance
joins through that, which sends the full state at once. The second joins through the first, which
omits the members, so the room can be used before they are known. Meanwhile another user of each
server sends one message after the other, to show how long these are delayed.
"""

import time
from urllib.parse import quote

import msgspec
from twisted.internet.defer import Deferred

from benchmarks.load.figures import Figure
from benchmarks.load.processes import resident_bytes
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import pause
from tests.support.refused import Refused
from tests.support.sites import Scene, Site
from tests.support.watcher import Watcher

MEMBERS = 10_000
USABLE_SECONDS, FULL_STATE_SECONDS = 2, 30
WAIT_MS = 50
ALONE_SECONDS = 3.0
MIB = 1 << 20
LAZY = msgspec.json.encode({"room": {"state": {"lazy_load_members": True}}}).decode()


class Bystander:
    """A user who sends messages in a room of their own, and the memory of their server."""

    def __init__(self, site: Site, watcher: Watcher, room: str) -> None:
        self._site = site
        self._watcher = watcher
        self._room = room
        self._waits: list[float] = []
        self._stopped = False
        self._before = self._most = resident_bytes(site.program.pid)
        self._sending = Deferred.fromCoroutine(self._send())

    async def stop(self) -> None:
        """Stop sending."""
        self._stopped = True
        await self._sending

    def figures(self, name: str) -> list[Figure]:
        """The latency of the messages, and the growth of the server's memory."""
        waits = sorted(self._waits)
        slow, worst = waits[len(waits) * 99 // 100] * 1000, waits[-1] * 1000
        grown = (self._most - self._before) / MIB
        note = f"of {len(waits):,}; the slowest {worst:.0f} ms"
        return [
            Figure(f"… a message {name}, 99 %", slow, "ms", WAIT_MS, True, note),
            Figure(f"… memory {name}, at most", grown, "MiB", note="more than before"),
        ]

    async def _send(self) -> None:
        while not self._stopped:
            start = time.perf_counter()
            await self._watcher.say(self._room, "still here")
            self._waits.append(time.perf_counter() - start)
            self._most = max(self._most, resident_bytes(self._site.program.pid))
            await pause(0.005)


async def measure(scene: Scene, authority: CertificateAuthority) -> list[Figure]:
    """Join the room through its first server, and then through the one that has just joined."""
    alice, bob = await scene.alice_and_bob()
    fake = FakeServer(authority)
    await fake.start()
    room = fake.create_room("11")
    room.crowd(MEMBERS)
    alone = await _bystander(scene, scene.second)
    await pause(ALONE_SECONDS)
    await alone.stop()
    figures = alone.figures("without other load")[:1]
    start = time.perf_counter()
    joining = await _bystander(scene, scene.first)
    await alice.join(room.room_id, via=[fake.name])
    taken = time.perf_counter() - start
    await joining.stop()
    name = f"joining a room of {MEMBERS:,} members"
    figures.append(Figure(f"{name}, all members at once", taken, "s"))
    figures += joining.figures("on the joining server")
    here, there = (
        await _bystander(scene, scene.second),
        await _bystander(scene, scene.first),
    )
    start = time.perf_counter()
    await bob.join(room.room_id, via=[scene.first.name])
    await bob.say(room.room_id, "hello")
    shown = await bob.sync(filter=LAZY)
    assert room.room_id in shown["rooms"]["join"]
    usable = time.perf_counter() - start
    members = await _all_members(bob, room.room_id)
    full_state = time.perf_counter() - start
    await here.stop()
    await there.stop()
    assert len(members) == MEMBERS + 3, len(members)
    figures += [
        Figure(f"{name}, until the user has sent a message", usable, "s", USABLE_SECONDS, True),
        Figure(f"{name}, until all members are known", full_state, "s", FULL_STATE_SECONDS, True),
        *here.figures("on the joining server"),
        *there.figures("on the responding server"),
    ]
    await fake.stop()
    return figures


async def _bystander(scene: Scene, site: Site) -> Bystander:
    watcher = await scene.user(site, "bystander")
    room = await watcher.create_room()
    return Bystander(site, watcher, room)


async def _all_members(watcher: Watcher, room_id: str) -> dict[str, object]:
    while True:
        try:
            response = await watcher.get(f"/rooms/{quote(room_id)}/joined_members")
        except Refused as refused:
            if refused.status != 503:
                raise
        else:
            members: dict[str, object] = response["joined"]
            return members
