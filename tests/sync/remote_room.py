"""A remote room: servers that know all its events, while the one under test has missed some.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Iterable
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.event_graph import in_auth_order, in_graph_order
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.partial_state_completion import PartialStateCompletion
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.rooms.newest_events import newest_events_in
from tests.rooms.inbound.replica import ALICE, BOB, Graph
from tests.sync.sync_server import SyncServer

MAX_EVENTS = 1_000  # more than any test sends


class RemoteRoom:
    """A room created on another server, in which `ALICE` has all power and `BOB` is a member.

    It returns up to `max_backfilled` events to a backfill, or as many as are requested.
    """

    def __init__(self, room_id: str = "!room:one.example") -> None:
        self.graph = Graph("11", room_id)
        self.graph.public()
        self.graph.join(BOB)
        self.room_id = self.graph.room.room_id
        self.max_backfilled: int | None = None
        self.by_id = {event.event_id: event for event in self.graph.events}
        self._server: SyncServer

    def use(self, server: SyncServer) -> None:
        """Be the other servers of the room for this server."""
        self._server = server

    def make(
        self, event_type: str, sender: str, content: Any, state_key: str | None = None, **how: Any
    ) -> Event:
        """An event that the other servers have; by default it follows all others."""
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
        """The forward extremities."""
        return [stored.event for stored in self.graph.writer.extremities.events]

    async def join(self, user: Requester) -> StoredEvent:
        """Have a local user join, and so the server under test."""
        join = self.member(user.user_id, "join")
        state = self._state_before(join)
        remote_join = self._server.core.remote_join
        return await remote_join.admit(join, state, self._chain(state))

    async def join_with_partial_state(self, user: Requester) -> StoredEvent:
        """The same with partial state; `send_members` sends the members later."""
        join = self.member(user.user_id, "join")
        state = [each for each in self._state_before(join) if each.type != MEMBER]
        servers = ["one.example", "two.example"]
        return await self._server.core.remote_join.admit(join, state, self._chain(state), servers)

    async def send_members(self, join: StoredEvent) -> None:
        """Send the members of the state before a join."""
        registry, receiver = self._server.core.registry, self._server.remote.receiving
        members = [each for each in self._state_before(join.event) if each.type == MEMBER]
        async with registry.writing(self.room_id) as writer:
            await receiver.outliers(writer, self._chain(members))
            completion = PartialStateCompletion(
                self._server.core.storage, receiver, self._server.db
            )
            await completion.complete(writer, [each.event_id for each in members])

    async def receive_sent(self, event_id: str) -> Event:
        """Receive an event of the server under test."""
        room = await self._server.core.registry.get(self.room_id)
        (stored,) = await self._server.remote.find(room, [event_id])
        return self._put(stored.event)

    async def receive_all_sent(self) -> None:
        """Receive all events that the server under test has sent."""
        core = self._server.core
        room = await core.registry.get(self.room_id)
        # In memory are only the newest ones, the fewer after a restart.
        newest = await self._server.db.run(
            newest_events_in, [room.room_nid], room.last_position, MAX_EVENTS
        )
        stored = await core.events.load(room.version, [event for _, _, event in newest])
        for _, _, event in reversed(newest):
            if stored[event].event.event_id not in self.by_id:
                self._put(stored[event].event)

    async def deliver(self, event: Event, **how: Any) -> StoredEvent:
        """Have an event received, with the state before it where its prev events were missed."""
        receiver = self._server.remote.receiving
        async with self._server.core.registry.writing(self.room_id) as writer:
            state = await self._given_state(writer, event)
            received = await receiver.receive(writer, event, state_before=state, **how)
        if received.done is not None:
            await received.done
        return received.stored

    async def fill(self, room: Room, depths: tuple[int, int], limit: int) -> bool:
        """Return the newest events before the backward extremities at these depths."""
        least, greatest = depths
        waiting = [
            gap for gap, depth in room.backward_extremities.items() if least <= depth <= greatest
        ]
        size = limit if self.max_backfilled is None else min(limit, self.max_backfilled)
        found: dict[str, Event] = {}
        while waiting and len(found) < size:
            waiting.sort(key=lambda event_id: self.by_id[event_id].depth)
            event = self.by_id[waiting.pop()]
            if event.event_id in found or await self._is_placed(event):
                continue
            found[event.event_id] = event
            waiting += event.prev_event_ids
        for event in in_graph_order(found.values()):
            await self.deliver(event, is_backfilled=True)
        return bool(found)

    async def _is_placed(self, event: Event) -> bool:
        registry = self._server.core.registry
        async with registry.writing(self.room_id) as writer:
            known = await self._server.remote.receiving.find_known(writer, [event.event_id])
        return any(not stored.status.is_outlier for stored in known.values())

    async def _given_state(self, writer: RoomWriter, event: Event) -> ResolvedState | None:
        receiver = self._server.remote.receiving
        known = await receiver.find_known(writer, event.prev_event_ids)
        placed = [stored for stored in known.values() if not stored.status.is_outlier]
        state = self._state_before(event)
        cited = [self.by_id[each] for each in event.auth_event_ids]
        await receiver.outliers(writer, self._chain([*state, *cited]))
        if len(placed) == len(set(event.prev_event_ids)):
            return None
        return await receiver.state_of(writer, [each.event_id for each in state])

    def _state_before(self, event: Event) -> list[Event]:
        root = self.graph.stored(event).state_before
        return [self.by_id[event_id] for event_id in self.graph.state_at(root).values()]

    def _chain(self, events: Iterable[Event]) -> list[Event]:
        """The events with their auth chains."""
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
