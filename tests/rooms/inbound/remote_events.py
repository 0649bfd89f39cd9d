"""Events of other servers for tests with a database: made on any branch, and received."""

from collections.abc import Sequence
from typing import Any

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.state.node_codec import EMPTY
from tests.rooms.inbound.replica import build


class RemoteEvents:
    """Makes events of users of other servers, and has this one receive them."""

    def __init__(self, rooms: RoomRegistry, storage: RoomStorage) -> None:
        self._rooms = rooms
        self._storage = storage
        self.resolver = StateResolver(storage)
        self.receiving = PduReceiver(storage, self.resolver, NoPolicyServers())
        self._made = 0

    async def make(
        self,
        room_id: str,
        event_type: str,
        sender: str,
        content: dict[str, Any],
        state_key: str | None = None,
        *,
        after: Sequence[str] | None = None,
        redacts: str | None = None,
        depth: int | None = None,
    ) -> Event:
        """An event that follows others, by default the forward extremities."""
        self._made += 1
        room = await self._rooms.get(room_id)
        if after is None:
            async with self._rooms.writing(room_id) as writer:
                prevs = list(writer.extremities.events)
        else:
            prevs = await self.find(room, after)
        state = await self.resolver.resolve(room, [prev.state_after for prev in prevs] or [EMPTY])
        keys = auth_types_for(room.version, event_type, sender, state_key, content)
        auth = await self._storage.state_at(room.version, state.root, keys)
        return build(
            room.version.identifier,
            room_id,
            event_type,
            sender,
            content,
            state_key,
            [prev.event for prev in prevs],
            [stored.event for stored in auth.values()],
            max((prev.event.depth for prev in prevs), default=0) + 1 if depth is None else depth,
            self._rooms.local_server.now_ms() + self._made,
            redacts,
        )

    async def receive(self, event: Event, **options: Any) -> StoredEvent:
        """Receive an event; returns when it is durable."""
        async with self._rooms.writing(event.room_id) as writer:
            received = await self.receiving.receive(writer, event, **options)
        if received.done is not None:
            await received.done
        return received.stored

    async def send(self, *what: Any, **how: Any) -> StoredEvent:
        """Make an event and receive it, whether it is accepted or not."""
        return await self.receive(await self.make(*what, **how))

    async def member(
        self, room_id: str, user_id: str, membership: str, by: str | None = None, **how: Any
    ) -> StoredEvent:
        content = {"membership": membership}
        return await self.send(room_id, "m.room.member", by or user_id, content, user_id, **how)

    async def say(self, room_id: str, sender: str, body: str, **how: Any) -> StoredEvent:
        content = {"msgtype": "m.text", "body": body}
        return await self.send(room_id, "m.room.message", sender, content, **how)

    async def find(self, room: Room, event_ids: Sequence[str]) -> list[StoredEvent]:
        found = await self._storage.events.find_many(
            room.version, room.room_nid, room.room_id, event_ids
        )
        return [found[event_id] for event_id in event_ids]
