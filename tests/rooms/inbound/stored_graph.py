"""A room with events of every status, received into a database."""

from homeserver.protocol.events import Event
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, Graph
from tests.rooms.support import RoomsTestCase


class StoredGraph:
    """Receives the events of a `Graph` into the database of a test."""

    def __init__(self, case: RoomsTestCase, graph: Graph) -> None:
        self.graph = graph
        self._case = case
        self._stores = case.storage
        self.receiving = PduReceiver(self._stores, StateResolver(self._stores), NoPolicyServers())

    async def open(self) -> RoomWriter:
        """Make the room, which has no event yet."""
        room_id, version = self.graph.room.room_id, self.graph.room.version
        number = await self._stores.names.nid(room_id)
        self.writer = self._case.rooms.add_new(Room(number, room_id, version, EMPTY))
        return self.writer

    async def receive(self, event: Event, **how: object) -> None:
        """Receive an event, and see it durable."""
        received = await self.receiving.receive(self.writer, event, **how)  # type: ignore[arg-type]
        if received.done is not None:
            await received.done


class MixedRoom:
    """A forked room with a soft-failed, a rejected and a backfilled event, an outlier and a gap.

    The attributes name the events.
    """

    def __init__(self) -> None:
        self.graph = graph = Graph()
        graph.public()
        self.bob = graph.join(BOB)
        self.left = graph.say(BOB, "left")
        self.right = graph.send("m.room.topic", ALICE, {"topic": "right"}, "", after=[self.bob])
        self.merge = graph.say(ALICE, "merge", after=[self.left, self.right])
        self.ban = graph.member(BOB, "ban", ALICE)
        self.soft_failed = graph.say(BOB, "late", after=[self.merge])
        self.rejected = graph.say(CAROL, "never joined", after=[self.ban])
        self.outlier = graph.make("m.room.name", ALICE, {"name": "x"}, "", after=[self.ban])
        # The events before it never arrive; `past` is backfilled later.
        self.lost = graph.say(ALICE, "lost", after=[self.ban])
        self.past = graph.say(ALICE, "past", after=[self.lost])
        self.after_gap = graph.say(ALICE, "after the gap", after=[self.past])

    async def store(self, case: RoomsTestCase) -> StoredGraph:
        stored = StoredGraph(case, self.graph)
        await stored.open()
        known = self.graph.events[: self.graph.events.index(self.rejected) + 1]
        for event in known:
            await stored.receive(event)
        _, done = await stored.receiving.outliers(stored.writer, [self.outlier])
        if done is not None:
            await done
        state = ResolvedState(stored.writer.extremities.root)
        await stored.receive(self.after_gap, state_before=state)
        await stored.receive(self.past, state_before=state, is_backfilled=True)
        return stored
