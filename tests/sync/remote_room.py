"""A room on other servers, which have all its events; the server under test misses some.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Iterable
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.event_graph import in_auth_order, in_graph_order
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.partial_state_completion import PartialStateCompletion
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.changes import MEMBER
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from tests.rooms.inbound.replica import ALICE, BOB, Graph
from tests.sync.sync_server import SyncServer


class RemoteRoom:
    """A room of another server, in which `ALICE` has all power and `BOB` is a member.

    It responds to backfill with up to `generosity` events, or as many as requested.
    """

    def __init__(self, room_id: str = "!room:one.example") -> None:
        self.graph = Graph("11", room_id)
        self.graph.public()
        self.graph.join(BOB)
        self.room_id = self.graph.room.room_id
        self.generosity: int | None = None
        self.by_id = {event.event_id: event for event in self.graph.events}
        self._server: SyncServer

    def use(self, server: SyncServer) -> None:
        """Be the rest of the room for this server."""
        self._server = server
        server.rooms.history.backfill = self

    def make(
        self, event_type: str, sender: str, content: Any, state_key: str | None = None, **how: Any
    ) -> Event:
        """An event that all other servers have; by default it follows all others."""
        how.setdefault("after", self.ends)
        event = self.graph.make(event_type, sender, content, state_key, **how)
        return self._put(event)

    def say(self, body: str = "hello", sender: str = BOB, **how: Any) -> Event:
        return self.make("m.room.message", sender, {"body": body}, **how)

    def rename(self, name: str, **how: Any) -> Event:
        return self.make("m.room.name", ALICE, {"name": name}, "", **how)

    def member(self, user_id: str, membership: str, by: str | None = None, **how: Any) -> Event:
        content = {"membership": membership}
        return self.make("m.room.member", by or user_id, content, user_id, **how)

    @property
    def ends(self) -> list[Event]:
        """The events that nothing follows yet."""
        return [stored.event for stored in self.graph.writer.extremities.events]

    async def enter(self, user: Requester) -> StoredEvent:
        """Let a user of the server under test join, as the first of that server."""
        join = self.member(user.user_id, "join")
        state = self._state_before(join)
        entrance = self._server.rooms.remote_join
        return await entrance.admit(join, state, self._chain(state))

    async def enter_without_members(self, user: Requester) -> StoredEvent:
        """The same without the members, which `complete` gives later."""
        join = self.member(user.user_id, "join")
        state = [each for each in self._state_before(join) if each.type != MEMBER]
        servers = ["one.example", "two.example"]
        return await self._server.rooms.remote_join.admit(join, state, self._chain(state), servers)

    async def complete(self, join: StoredEvent) -> None:
        """Give the members of the state before a join."""
        registry, receiving = self._server.rooms.registry, self._server.remote.receiving
        members = [each for each in self._state_before(join.event) if each.type == MEMBER]
        async with registry.writing(self.room_id) as writer:
            await receiving.outliers(writer, self._chain(members))
            completion = PartialStateCompletion(registry, receiving, self._server.db)
            await completion.complete(writer, [each.event_id for each in members])

    async def receive(self, event_id: str) -> Event:
        """Receive an event of the server under test."""
        room = await self._server.rooms.registry.get(self.room_id)
        (stored,) = await self._server.remote.find(room, [event_id])
        return self._put(stored.event)

    async def receive_all(self) -> None:
        """Receive all events that the server under test has sent."""
        room = await self._server.rooms.registry.get(self.room_id)
        for stored in list(room.timeline):
            if stored.event.event_id not in self.by_id:
                self._put(stored.event)

    async def deliver(self, event: Event, **how: Any) -> StoredEvent:
        """Have an event received, with the state before it where what it follows was missed."""
        receiving = self._server.remote.receiving
        async with self._server.rooms.registry.writing(self.room_id) as writer:
            state = await self._given_state(writer, event)
            received = await receiving.receive(writer, event, state_before=state, **how)
        if received.done is not None:
            await received.done
        return received.stored

    async def fill(self, room: Room, depths: tuple[int, int], limit: int) -> bool:
        """Backfill the gaps at these depths, with the newest events of the history before them."""
        least, greatest = depths
        waiting = [
            gap for gap, depth in room.backward_extremities.items() if least <= depth <= greatest
        ]
        size = limit if self.generosity is None else min(limit, self.generosity)
        found: dict[str, Event] = {}
        while waiting and len(found) < size:
            waiting.sort(key=lambda event_id: self.by_id[event_id].depth)
            event = self.by_id[waiting.pop()]
            if event.event_id in found or await self._is_placed(event):
                continue
            found[event.event_id] = event
            waiting += event.prev_event_ids
        for event in in_graph_order(found.values()):
            await self.deliver(event, is_past=True)
        return bool(found)

    async def _is_placed(self, event: Event) -> bool:
        registry = self._server.rooms.registry
        async with registry.writing(self.room_id) as writer:
            known = await self._server.remote.receiving.find_known(writer, [event.event_id])
        return any(not stored.status.is_outlier for stored in known.values())

    async def _given_state(self, writer: RoomWriter, event: Event) -> ResolvedState | None:
        receiving = self._server.remote.receiving
        known = await receiving.find_known(writer, event.prev_event_ids)
        placed = [stored for stored in known.values() if not stored.status.is_outlier]
        state = self._state_before(event)
        cited = [self.by_id[each] for each in event.auth_event_ids]
        await receiving.outliers(writer, self._chain([*state, *cited]))
        if len(placed) == len(set(event.prev_event_ids)):
            return None
        return await receiving.state_of(writer, [each.event_id for each in state])

    def _state_before(self, event: Event) -> list[Event]:
        root = self.graph.stored(event).state_before
        return [self.by_id[event_id] for event_id in self.graph.state_at(root).values()]

    def _chain(self, events: Iterable[Event]) -> list[Event]:
        """The events with all that authorises them."""
        chain: dict[str, Event] = {}
        waiting = list(events)
        while waiting:
            event = waiting.pop()
            if event.event_id not in chain:
                chain[event.event_id] = event
                waiting += [self.by_id[each] for each in event.auth_event_ids]
        return in_auth_order(chain.values())

    def _put(self, event: Event) -> Event:
        self.graph.receive(event)
        self.graph.events.append(event)
        self.by_id[event.event_id] = event
        return event
