"""The cost of receiving the events of another server, and the memory that a long history takes.

    python -m benchmarks.pdu_ingestion [--events N] [--history N]

One process with an embedded PostgreSQL, fsync on. Each event gets all checks on receipt: its JSON
is parsed and its format checked, its hash and signature are verified, it is checked by its auth
events, by the state before it and by the current state, joins the graph, and is durable. As in a
transaction of federation, 50 events come together, and the next ones when they are durable. Events
are made and signed before the clock runs.

Rates depend on the machine and its other load. The ratio of an event's CPU time to that of the
checks that need only the event itself hardly does: the note has both times.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.figures import Figure, table
from benchmarks.load.processes import resident_bytes
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.sections.limits import LimitSettings
from homeserver.protocol.events import Event, build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.hashes import check_content_hash
from homeserver.protocol.signing.signatures import SigningKey, verify_event_signature
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.store import StateStore
from homeserver.storage.database.database import Database
from homeserver.storage.database.embedded import EmbeddedPostgres
from homeserver.storage.database.migrate import migrate_in_thread
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from tests.support.counters import free_counters

VERSION = ROOM_VERSIONS["11"]
REMOTE = "remote.example"
ALICE = f"@alice:{REMOTE}"
KEY = SigningKey.from_seed("1", bytes(32))
TRANSACTION_EVENTS = 50  # events of a transaction, as in https://spec.matrix.org/v1.19/server-server-api/#transactions
MEMBERS = 100
BRANCHES = 10
MEBIBYTE = 1 << 20


class RemoteRoom:
    """A room of another server, which makes and signs its events."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._room_id: str | None = None
        self._auth: dict[str, Event] = {}
        self._count = 0

    def begin(self) -> list[Event]:
        """Create the room, with members; returns all events, a linear history."""
        create = self.event("m.room.create", {"room_version": VERSION.identifier}, "", after=[])
        self._auth["create"] = create
        events = [create, self.join(ALICE, after=[create])]
        self._auth["alice"] = events[-1]
        levels = {"users": {ALICE: 100}, "events_default": 0}
        events.append(self.event("m.room.power_levels", levels, "", after=events[-1:]))
        self._auth["levels"] = events[-1]
        rules = {"join_rule": "public"}
        events.append(self.event("m.room.join_rules", rules, "", after=events[-1:]))
        self._auth["rules"] = events[-1]
        for number in range(MEMBERS - 1):
            events.append(self.join(f"@member{number}:{REMOTE}", after=events[-1:]))
        return events

    def linear(self, events: Sequence[Event], state_every: int = 0) -> Iterator[Event]:
        """Endless events, each following the one before; one in `state_every` is a state event."""
        last = events[-1]
        while True:
            last = self._next(last, state_every)
            yield last

    def branches(self, events: Sequence[Event], state_every: int = 0) -> Iterator[Event]:
        """Branches that never meet, each with its own state; they yield one event each in turn."""
        tips = [
            self.event("bench.branch", {"n": number}, str(number), after=events[-1:])
            for number in range(BRANCHES)
        ]
        yield from tips
        while True:
            for number, tip in enumerate(tips):
                tips[number] = self._next(tip, state_every)
                yield tips[number]

    def join(self, user_id: str, *, after: Sequence[Event]) -> Event:
        return self.event("m.room.member", {"membership": "join"}, user_id, user_id, after=after)

    def event(
        self,
        event_type: str,
        content: dict[str, Any],
        state_key: str | None = None,
        sender: str = ALICE,
        *,
        after: Sequence[Event],
    ) -> Event:
        """An event that follows others and cites the auth events that the rules select."""
        self._count += 1
        joining = event_type == "m.room.member"
        cited = {"create", "levels", "rules"} if joining else {"create", "levels", "alice"}
        room_id = self._room_id or f"!{self._name}:{REMOTE}"
        return build_event(
            VERSION,
            room_id=room_id,
            type=event_type,
            sender=sender,
            content=content,
            state_key=state_key,
            prev_events=after,
            auth_events=[event for name, event in self._auth.items() if name in cited],
            depth=max((event.depth for event in after), default=0) + 1,
            origin_server_ts=1_700_000_000_000 + self._count,
            server_name=REMOTE,
            key=KEY,
        )

    def _next(self, last: Event, state_every: int) -> Event:
        if state_every and self._count % state_every == 0:
            key = str(self._count // state_every % 1000)
            return self.event("bench.state", {"n": self._count}, key, after=[last])
        content = {"msgtype": "m.text", "body": f"This is message number {self._count}"}
        return self.event("m.room.message", content, after=[last])


class ReceivingServer:
    """The part of a homeserver that receives events."""

    def __init__(self, reactor: Any, db: Database) -> None:
        log = Log(reactor, db.write_batch, free_counters(reactor))
        limits = LimitSettings()
        states = StateStore(db, limits.cached_state_nodes)
        events = EventStore(db, limits.cached_events)
        self._storage = RoomStorage(log, Names(db), states, events)
        origin = LocalServer("local.example", SigningKey.from_seed("2", bytes(32)), reactor)
        self.rooms = RoomRegistry(db, origin, self._storage)
        self._receiver = PduReceiver(self._storage, StateResolver(self._storage), NoPolicyServers())
        log.subscribe(self.rooms.apply)

    async def receive(self, writer: RoomWriter, pdus: Sequence[bytes]) -> None:
        """Receive a transaction; returns when all of it is durable."""
        done = []
        events = [checked(pdu) for pdu in pdus]
        await self._receiver.look_up(writer, events)
        for event in events:
            received = await self._receiver.receive(writer, event)
            check_result = received.stored.status
            if check_result.rejected or check_result.soft_failed or received.done is None:
                raise AssertionError(f"not accepted: {check_result}")
            done.append(received.done)
        for one in done:
            await one


def checked(pdu: bytes) -> Event:
    """Decode an event and run the checks that need only the event itself."""
    event = Event.from_pdu(VERSION, msgspec.json.decode(pdu))
    verify_event_signature(VERSION, event.pdu, REMOTE, KEY.key_id, KEY.verify_key)
    if not check_content_hash(VERSION, event.pdu):
        raise AssertionError("wrong hash")
    return event


def checking(pdus: Sequence[bytes]) -> float:
    """CPU seconds for one event of the checks that need only the event itself."""
    started = time.process_time()
    for pdu in pdus:
        checked(pdu)
    return (time.process_time() - started) / len(pdus)


async def rate(
    server: ReceivingServer, name: str, count: int, *, forked: bool, state_every: int = 0
) -> Figure:
    """Events a second in a room with a linear history, or with branches."""
    remote = RemoteRoom(name.translate({ord(" "): "-", ord(","): ""}))
    first = remote.begin()
    more = remote.branches if forked else remote.linear
    later = [event.json for event in islice(more(first, state_every), count)]
    async with server.rooms.entering(first[0].room_id, VERSION) as writer:
        await server.receive(writer, [event.json for event in first])
        started, cpu = time.perf_counter(), time.process_time()
        for begin in range(0, count, TRANSACTION_EVENTS):
            await server.receive(writer, later[begin : begin + TRANSACTION_EVENTS])
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        extremities = len(writer.extremities.events)
    note = (
        f"extremities: {extremities}; {cpu / count * 1e6:,.0f} µs of CPU without the database's, "
        f"{checking(later) * 1e6:,.0f} of them for format, hash and signature"
    )
    return Figure(f"events received, {name}", count / seconds, "/s", note=note)


async def history(server: ReceivingServer, count: int) -> list[Figure]:
    """The growth of the process by a long history, and by its second half alone."""
    remote = RemoteRoom("history")
    first = remote.begin()
    events = remote.linear(first, state_every=20)
    sizes: list[int] = []
    async with server.rooms.entering(first[0].room_id, VERSION) as writer:
        await server.receive(writer, [event.json for event in first])
        sizes.append(resident_bytes(os.getpid()))
        started = time.perf_counter()
        for _ in range(2):
            for _ in range(0, count // 2, TRANSACTION_EVENTS):
                await server.receive(
                    writer, [event.json for event in islice(events, TRANSACTION_EVENTS)]
                )
            sizes.append(resident_bytes(os.getpid()))
            report(f"{sizes[-1] / MEBIBYTE:,.0f} MiB after {time.perf_counter() - started:,.0f} s")
    total, second = (sizes[2] - sizes[0]) / MEBIBYTE, (sizes[2] - sizes[1]) / MEBIBYTE
    return [
        Figure(f"memory for a history of {count:,} events", total, "MiB", note="with all caches"),
        Figure("of that, for the second half", second, "MiB", note="caches are full by then"),
    ]


async def measure(reactor: Any, dsn: str, events: int, length: int) -> list[Figure]:
    """All figures."""
    await migrate_in_thread(reactor, dsn)
    db = Database(reactor, dsn)
    await db.open()
    try:
        server = ReceivingServer(reactor, db)
        figures = [
            await rate(server, "a linear history", events, forked=False),
            await rate(server, "a linear history, every 10th a state event", events, forked=False,
                       state_every=10),
            await rate(server, "10 branches", events, forked=True),
            await rate(server, "10 branches, every 10th a state event", events, forked=True,
                       state_every=10),
        ]  # fmt: skip
        report(table(figures))
        return [*figures, *(await history(server, length) if length else [])]
    finally:
        await db.close()


def report(text: str) -> None:
    """Report progress on standard error, separately from the table."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Print the table; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pdu_ingestion", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000, help="of each room (5,000)")
    parser.add_argument("--history", type=int, default=100_000, help="events (100,000); 0: none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        postgres.start()
        try:
            figures = run_in_reactor(
                lambda reactor: measure(reactor, postgres.dsn, options.events, options.history)
            )
        finally:
            postgres.stop()
    print(f"\n{table(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
