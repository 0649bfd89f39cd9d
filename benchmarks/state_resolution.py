"""The cost of resolving the states of two branches, as rooms and conflicts grow.

    python -m benchmarks.state_resolution

Rooms whose members joined one after the other, with a change of power levels after every hundredth
of them, in a PostgreSQL as the tests use it. "cold" is a first resolution after a start, with
nothing in memory; "warm" is the next one of the same branches; "CPU" is what the cold one costs
this process. "held" is the longest time that the reactor's thread worked without yielding, "read"
the number of statements. Garbage, which the server collects in quiet moments, is not collected
meanwhile.
"""

import gc
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.changes import EventsStored, StateKey
from homeserver.rooms.room.event_rows import auth_rows, event_rows, names_of
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.rooms.state.store import StateStore
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from tests.support.counters import free_counters
from tests.support.postgres import drop_database, fresh_database

ADMIN, MODERATOR = "@admin:example.org", "@moderator:example.org"
KEY = SigningKey.from_seed("1", bytes(32))
VERSIONS = ("11", "12")
SIZES = (100, 1_000, 10_000)
JOINS_BETWEEN = 100  # changes of the power levels
HEARTBEAT = 0.001  # seconds


def new_stores(db: Database, position: int) -> RoomStorage:
    """The stores of a server that has just started."""
    clock: Any = reactor
    log = Log(clock, db.write_batch, free_counters(clock, position))
    return RoomStorage(log, Names(db), StateStore(db, 40_000), EventStore(db, 40_000))


class Branch:
    """The state after some events of a room, each sent in the state after the one before."""

    def __init__(self, stores: RoomStorage, room: Room) -> None:
        self.state: dict[StateKey, StoredEvent] = {}
        self.root = EMPTY
        self._stores = stores
        self._room = room
        self._new: list[tuple[StoredEvent, list[int]]] = []

    def fork(self) -> "Branch":
        other = Branch(self._stores, self._room)
        other.state, other.root = dict(self.state), self.root
        return other

    def send(self, event_type: str, sender: str, content: dict[str, Any], key: str = "") -> None:
        """Send a state event with the auth events that the rules select."""
        keys = auth_types_for(self._room.version, event_type, sender, key, content)
        cited = [self.state[each] for each in keys if each in self.state]
        number = self._stores.log.next_event_number()
        event = build_event(
            self._room.version,
            room_id=self._room.room_id or None,
            type=event_type,
            sender=sender,
            content=content,
            state_key=key,
            prev_events=[],
            auth_events=[each.event for each in cited],
            depth=number,
            origin_server_ts=number,
            server_name="example.org",
            key=KEY,
        )
        if event_type == "m.room.create":
            self._room.room_id = event.room_id
        stored = self.state[event_type, key] = StoredEvent(
            event, number, None, EMPTY, EMPTY, stored_at=number
        )
        self._new.append((stored, [each.event_nid for each in cited]))

    def member(self, user_id: str, membership: str, by: str = "", **content: str) -> None:
        self.send("m.room.member", by or user_id, {"membership": membership} | content, user_id)

    def levels(self, note: int) -> None:
        """Change the power levels; `note` makes each change a different one."""
        users = {MODERATOR: 50}
        if not self._room.version.creators_outrank_everyone:
            users[ADMIN] = 100
        self.send("m.room.power_levels", ADMIN, {"users": users, "events": {"note": note}})

    async def store(self) -> None:
        """Store the events and the state after them."""
        stores, fresh = self._stores, [stored for stored, _ in self._new]
        names = await stores.names.nids({name for each in fresh for name in names_of(each.event)})
        changes = {
            (names[each.event.type], names[each.event.state_key or ""]): each.event_nid
            for each in fresh
        }
        self.root, rows = await stores.states.change(self.root, changes)
        for stored, cited in self._new:
            stored.state_before = stored.state_after = self.root
            rows += event_rows(stores.names, self._room.room_nid, stored)
            rows += auth_rows(stored, cited)
        self._new = []
        await stores.log.append(
            EventsStored(stores.log.next_position(), self._room.room_nid, fresh, {}), rows
        )


def topics(left: Branch, right: Branch) -> None:
    """Two users set the topic at the same time."""
    left.send("m.room.topic", ADMIN, {"topic": "left"})
    right.send("m.room.topic", MODERATOR, {"topic": "right"})


def ban(left: Branch, right: Branch) -> None:
    """A moderator is banned on one branch, and bans ten users on the other."""
    left.member(MODERATOR, "ban", ADMIN)
    for user_id in users(10):
        right.member(user_id, "ban", MODERATOR)


def split(left: Branch, right: Branch) -> None:
    """Two halves of the room receive nothing of each other, and half of all change their names."""
    members = [key[1] for key in left.state if key[0] == "m.room.member" and key[1] != ADMIN]
    for place, user_id in enumerate(members):
        if place % 2:
            branch = left if place % 4 == 1 else right
            branch.member(user_id, "join", displayname="new")
    left.levels(-1)


def absence(left: Branch, right: Branch) -> None:
    """An old branch: all members have changed their names since, and the levels changed."""
    for number, key in enumerate([key for key in left.state if key[0] == "m.room.member"]):
        left.member(key[1], "join", displayname="new")
        if number % JOINS_BETWEEN == 0:
            left.levels(-number)
    topics(left, right)


SCENARIOS = (topics, ban, split, absence)


def users(count: int) -> list[str]:
    return [f"@user{number}:example.org" for number in range(count)]


async def room_of(stores: RoomStorage, version: str, members: int) -> tuple[Room, Branch]:
    """A new room with its members."""
    row = ROOM_VERSIONS[version]
    room_id = "" if row.room_id_is_create_hash else f"!room{members}:example.org"
    room = Room(0, room_id, row, EMPTY)
    main = Branch(stores, room)
    content = {"room_version": version, "creator": ADMIN, "members": members}
    main.send("m.room.create", ADMIN, content)
    room.room_nid = await stores.names.nid(room.room_id)
    main.member(ADMIN, "join")
    main.levels(0)
    main.send("m.room.join_rules", ADMIN, {"join_rule": "public"})
    main.member(MODERATOR, "join")
    for number, user_id in enumerate(users(members)):
        main.member(user_id, "join")
        if number % JOINS_BETWEEN == 0:
            main.levels(number)
    await main.store()
    return room, main


class Heart:
    """Runs in every reactor iteration; measures the longest work between two of them."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.thread_time()
        self._loop = LoopingCall(self._beat)
        self._loop.start(HEARTBEAT)

    def stop(self) -> float:
        """Stop; returns the longest work without yielding, in seconds of CPU."""
        self._beat()
        self._loop.stop()
        return self.longest

    def _beat(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now


async def measure(
    db: Database, stores: RoomStorage, version: str, members: int, scenario: Any
) -> None:
    """Print one row of the table."""
    room, main = await room_of(stores, version, members)
    left, right = main.fork(), main.fork()
    scenario(left, right)
    await left.store()
    await right.store()
    roots = [left.root, right.root]
    fresh = new_stores(db, stores.log.position)
    conflicts = len(await new_stores(db, 0).states.diff_many(roots))
    gc.collect()
    gc.disable()
    runs, cpu, heart = db.runs, time.process_time(), Heart()
    cold = await seconds(fresh, room, roots)
    held, read, cpu = heart.stop(), db.runs - runs, time.process_time() - cpu
    gc.enable()
    warm = await seconds(fresh, room, roots)
    print(
        f"{version:>7} {members:>7,} {scenario.__name__:>9} {conflicts:>9,} {cold * 1000:>9,.1f}"
        f" {cpu * 1000:>8,.1f} {warm * 1000:>9,.1f} {held * 1000:>7,.1f} {read:>6,}",
        flush=True,
    )


async def seconds(stores: RoomStorage, room: Room, roots: list[bytes]) -> float:
    """The time that a resolution takes."""
    resolver = StateResolver(stores)
    started = time.perf_counter()
    await resolver.resolve(room, roots)
    return time.perf_counter() - started


async def run(_: Any) -> None:
    """Print the table."""
    print("version members  branches conflicts      cold      CPU      warm    held   read")
    print("                                          ms       ms        ms      ms")
    dsn = fresh_database()
    db = Database(reactor, dsn)
    await db.open()
    try:
        stores = new_stores(db, 0)
        for version in VERSIONS:
            for members in SIZES:
                for scenario in SCENARIOS:
                    await measure(db, stores, version, members, scenario)
    finally:
        await db.close()
        drop_database(dsn)


if __name__ == "__main__":
    react(lambda clock: Deferred.fromCoroutine(run(clock)))
