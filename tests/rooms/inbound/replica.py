"""Servers in memory that all receive the events of one room, for tests of the event graph.

A `Replica` is a room writer with everything around it but a database: nothing is ever dropped from
memory, and nothing needs to be read. A `Graph` makes the events: it is a replica itself, and so
knows the state before any event that is to be made.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.events import Event, build_event
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.branches import BranchSender
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.received_event import ReceivedEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.changes import (
    EventAppended,
    RoomChange,
    StateChanged,
    StateKey,
    with_own_events,
)
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.rooms.state.store import StateStore
from homeserver.storage.database.batch import Batch
from homeserver.storage.database.database import DatabaseUnavailable
from homeserver.storage.rooms import auth_edges as edges_storage
from homeserver.storage.rooms import event_graph
from homeserver.storage.rooms import events as events_storage
from homeserver.storage.rooms import names as names_storage
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from homeserver.wiring.entry_kinds import entry_codec
from tests.rooms.state.stored_edges import StoredEdges
from tests.support.logs import free_counters, transcoding

ALICE = "@alice:one.example"  # the creator of the rooms
BOB = "@bob:two.example"
CAROL = "@carol:three.example"
DAVE = "@dave:one.example"
ENTRY_CODEC = entry_codec()
KEY = SigningKey.from_seed("1", bytes(32))
NOTHING_STORED = (
    events_storage.event_numbers,
    events_storage.rooms_with_event,
    event_graph.state_entries,
)
T = TypeVar("T")


class MemoryDatabase:
    """Answers like a database that holds names and auth edges: all else is still in the caches."""

    def __init__(self) -> None:
        self.nids: dict[str, int] = {}
        self.other_rooms: dict[str, list[int]] = {}  # event id -> other rooms that have it
        self.answers_left: int | None = None  # before it is unavailable
        self.is_read_only = False
        self.pause: Deferred[None] | None = None  # every question waits for it
        self.edges = StoredEdges()

    async def run(self, function: Any, *args: Any, **options: Any) -> Any:
        if self.pause is not None:
            await self.pause
        if self.answers_left == 0:
            raise Unavailable("the database is unavailable")
        if self.answers_left is not None:
            self.answers_left -= 1
        if function is names_storage.intern_names:
            return {name: self.nids.setdefault(name, len(self.nids) + 1) for name in args[0]}
        if function is names_storage.find_nids:
            return {name: self.nids[name] for name in args[0] if name in self.nids}
        if function is names_storage.find_names:
            return {name: nid for name, nid in self.nids.items() if nid in args[0]}
        if function is edges_storage.auth_edges:
            return self.edges.auth_edges(args[0], len(args[0]))
        if function is edges_storage.auth_edges_beyond:
            return self.edges.auth_edges(*args)
        if function is edges_storage.citing_events:
            return self.edges.citing_events(*args)
        if function in NOTHING_STORED and function is not events_storage.rooms_with_event:
            return []
        if function is events_storage.rooms_with_event:
            return self.other_rooms.get(args[0], [])
        raise AssertionError(f"{function.__name__} was not expected to be asked")

    async def write_batch(self, batch: Batch) -> None:
        """Store the edges; tests read nothing else of what was written."""
        if self.is_read_only:
            raise DatabaseUnavailable
        self.edges.write(batch)


class Replica:
    """One server's view of the room."""

    def __init__(self, server_name: str, version: str, room_id: str) -> None:
        self.db: Any = MemoryDatabase()
        self.clock = Clock()
        self.log = Log(
            self.clock,
            self.db.write_batch,
            free_counters(self.clock),
            transcode=transcoding(is_wanted=False),
        )
        events = EventStore(self.db, 1_000_000)
        self.stores = RoomStorage(self.log, Names(self.db), StateStore(self.db, 1_000_000), events)
        self.resolver = StateResolver(self.stores)
        self.receiving = PduReceiver(self.stores, self.resolver, NoPolicyServers())
        self.room = Room(1, room_id, ROOM_VERSIONS[version], EMPTY)
        origin = LocalServer(server_name, KEY, self.clock)
        self.writer = RoomWriter(
            self.room,
            ForwardExtremities((), EMPTY),
            origin,
            self.stores,
            (BranchSender(self.receiving),),
        )
        self.published: list[bytes] = []  # the entries of the log, as other processes get them
        self.shown: list[StoredEvent] = []  # events in clients' timelines, in this order
        self.log.subscribe(self._apply)

    def receive(self, event: Event, **options: Any) -> StoredEvent:
        """Receive an event, and see it published. Raises `EventsMissing`."""
        received = self.run(self.receiving.receive(self.writer, event, **options))
        self.publish()
        result: ReceivedEvent = received
        return result.stored

    def receive_all(self, events: Iterable[Event]) -> None:
        """Receive events in any order, each as soon as the events that it follows are there."""
        waiting = list(events)
        while waiting:
            late = []
            for event in waiting:
                try:
                    self.receive(event)
                except EventsMissing:
                    late.append(event)
            assert len(late) < len(waiting), "events that follow nothing"
            waiting = late

    def run(self, coroutine: Any) -> Any:
        """The result of a coroutine that waits for nothing but the log."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        if not outcome:
            self.publish()
        assert outcome, "it waits for something"
        if hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        return outcome[0]

    def publish(self) -> None:
        """Let the log publish its batches."""
        self.clock.advance(0)

    def stored(self, event: Event) -> StoredEvent:
        found = self.stores.events.cached_id(self.room.room_id, event.event_id)
        assert found is not None
        return found

    def state_at(self, root: bytes) -> dict[StateKey, str]:
        """A state as event ids."""
        entries = self.run(self.stores.states.load(root))
        names = {nid: name for name, nid in self.db.nids.items()}
        state: dict[StateKey, str] = {}
        for (type_nid, key_nid), number in entries.items():
            stored = self.stores.events.cached(number)
            assert stored is not None
            state[names[type_nid], names[key_nid]] = stored.event.event_id
        return state

    @property
    def state(self) -> dict[StateKey, str]:
        """The current state."""
        return self.state_at(self.room.root)

    @property
    def shown_state(self) -> dict[StateKey, str]:
        """The current state as subscribers have put it together from published changes."""
        numbers = dict(self.room.state)
        numbers |= {("m.room.member", user): n for user, n in self.room.member_events.items()}
        state = {}
        for key, number in numbers.items():
            stored = self.stores.events.cached(number)
            assert stored is not None
            state[key] = stored.event.event_id
        return state

    @property
    def extremities(self) -> set[str]:
        return {stored.event.event_id for stored in self.writer.extremities.events}

    def _apply(self, entries: Sequence[Any]) -> None:
        self.published += [ENTRY_CODEC.encode(entry) for entry in entries]
        for published in entries:
            entry = with_own_events(published, self.stores.events)
            if isinstance(entry, EventAppended):
                self.shown.append(entry.stored)
            if isinstance(entry, StateChanged):
                self.room.apply(entry)
                self.writer.published(entry.position, entry.changes)
            elif isinstance(entry, RoomChange):
                self.room.follow(entry)


class Graph(Replica):
    """Makes the events of a room, on any branches, and has received all of them itself."""

    def __init__(self, version: str = "11", room_id: str = "!room:one.example") -> None:
        row = ROOM_VERSIONS[version]
        content = {"room_version": version, "creator": ALICE}
        given = None if row.room_id_is_create_hash else room_id
        create = build(version, given, "m.room.create", ALICE, content, "", [], [], 1, 1)
        super().__init__("one.example", version, create.room_id)
        self.version = version
        self.events = [create]
        self.receive(create)

    @property
    def create(self) -> Event:
        return self.events[0]

    def replica(self, server_name: str = "four.example") -> Replica:
        """Another server, which has received nothing."""
        return Replica(server_name, self.version, self.room.room_id)

    def make(
        self,
        event_type: str,
        sender: str,
        content: dict[str, Any],
        state_key: str | None = None,
        *,
        after: Sequence[Event] | None = None,
        auth: Sequence[Event] | None = None,
        depth: int | None = None,
        at: int | None = None,
        redacts: str | None = None,
    ) -> Event:
        """Make an event without receiving it; by default it follows the newest one.

        `auth` are the events that it cites, by default the required ones.
        """
        prevs = self.events[-1:] if after is None else after
        if auth is None:
            auth = self.auth_events(event_type, sender, content, state_key, prevs)
        if depth is None:
            depth = max((prev.depth for prev in prevs), default=0) + 1
        timestamp = len(self.events) + 1 if at is None else at
        return build(
            self.version,
            self.room.room_id,
            event_type,
            sender,
            content,
            state_key,
            prevs,
            auth,
            depth,
            timestamp,
            redacts,
        )

    def send(self, event_type: str, sender: str, content: Any, *args: Any, **how: Any) -> Event:
        """Make an event and receive it, whether it is accepted or not."""
        event = self.make(event_type, sender, content, *args, **how)
        self.receive(event)
        self.events.append(event)
        return event

    def join(self, user_id: str, **how: Any) -> Event:
        return self.member(user_id, "join", **how)

    def member(self, user_id: str, membership: str, by: str | None = None, **how: Any) -> Event:
        content = {"membership": membership}
        return self.send("m.room.member", by or user_id, content, user_id, **how)

    def levels(self, by: str = ALICE, *, users: dict[str, int], **how: Any) -> Event:
        if ROOM_VERSIONS[self.version].creators_outrank_everyone:
            users = {user_id: level for user_id, level in users.items() if user_id != ALICE}
        content = {"users": users}
        return self.send("m.room.power_levels", by, content, "", **how)

    def say(self, sender: str, body: str = "hello", **how: Any) -> Event:
        return self.send("m.room.message", sender, {"body": body}, **how)

    def redact(self, sender: str, target: str, **how: Any) -> Event:
        if self.room.version.redacts_in_content:
            return self.send("m.room.redaction", sender, {"redacts": target}, **how)
        return self.send("m.room.redaction", sender, {}, redacts=target, **how)

    def public(self) -> None:
        """Allow everybody to join."""
        self.join(ALICE)
        self.levels(users={ALICE: 100})
        self.send("m.room.join_rules", ALICE, {"join_rule": "public"}, "")

    def auth_events(
        self,
        event_type: str,
        sender: str,
        content: dict[str, Any],
        state_key: str | None,
        prevs: Sequence[Event],
    ) -> list[Event]:
        """The auth events required of an event at this place."""
        keys = auth_types_for(self.room.version, event_type, sender, state_key, content)
        roots = [self.stored(prev).state_after for prev in prevs]
        resolved = self.run(self.resolver.resolve(self.room, roots or [EMPTY]))
        state = self.run(self.stores.state_at(self.room.version, resolved.root, keys))
        return [stored.event for stored in state.values()]


def build(
    version: str,
    room_id: str | None,
    event_type: str,
    sender: str,
    content: dict[str, Any],
    state_key: str | None,
    prevs: Sequence[Event],
    auth: Sequence[Event],
    depth: int,
    timestamp: int,
    redacts: str | None = None,
) -> Event:
    """An event of any room, signed with one key for all servers."""
    return build_event(
        ROOM_VERSIONS[version],
        room_id=room_id,
        type=event_type,
        sender=sender,
        content=content,
        state_key=state_key,
        prev_events=prevs,
        auth_events=auth,
        depth=depth,
        origin_server_ts=timestamp,
        redacts=redacts,
        server_name=server_name_of(sender),
        key=KEY,
    )
