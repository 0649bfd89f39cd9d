"""Memberships in rooms that this server is not in: invites from afar, knocks, and their end.

All that is known of such a room is an event and some stripped state. The event is kept as an
outlier, which nothing here can judge: the server that sent it answers for it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.protocol.events import Event
from homeserver.rooms.event_rows import event_rows, names_of, nid_of
from homeserver.rooms.room_facts import MovedFromAfar, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_tree_nodes import EMPTY
from homeserver.rooms.stored_event import Standing, StoredEvent
from homeserver.storage.database import Database
from homeserver.storage.distant_memberships import UPSERT_DISTANT_MEMBERSHIP, stripped_state_of
from homeserver.storage.memberships import UPSERT_MEMBERSHIP
from homeserver.storage.rooms import INSERT_ROOM


class DistantMemberships:
    """Keeps what happens to users of this server in rooms that it is not in."""

    def __init__(self, db: Database, rooms: Rooms) -> None:
        self._db = db
        self._rooms = rooms

    async def take(self, event: Event, stripped: Sequence[Any] = ()) -> StoredEvent:
        """Keep a member event of a user of ours, and what was told of the room with it.

        Returns when it is durable and the user's devices know. Raises `Unavailable`.
        """
        stores = self._rooms.stores
        nids = await stores.names.nids([event.room_id, *names_of(event)])
        room, user_id = nids[event.room_id], event.state_key or ""
        known = await stores.events.find_many(event.version, room, event.room_id, [event.event_id])
        log = stores.log
        log.check_open()
        position = log.next_position()
        # Another request may have brought the same event since it was looked for.
        stored = stores.events.cached_id(event.room_id, event.event_id) or known.get(event.event_id)
        rows = []
        if stored is None:
            stored = StoredEvent(
                event, position, None, EMPTY, EMPTY, standing=Standing(is_outlier=True)
            )
            rows += event_rows(stores.names, room, stored)
        sender = nid_of(stores.names, event.sender)
        member, membership = nid_of(stores.names, user_id), membership_of(stored)
        rows.append(INSERT_ROOM.row(room, event.version.identifier, sender, False))
        rows.append(
            UPSERT_MEMBERSHIP.row(member, room, membership, stored.number, position, sender)
        )
        if stripped:
            told = msgspec.json.encode(list(stripped))
            rows.append(UPSERT_DISTANT_MEMBERSHIP.row(room, member, told))
        stores.events.add(stored)
        await log.append(MovedFromAfar(position, room, user_id, membership, stored), rows)
        return stored

    async def stripped_state(self, room: int, user_id: str) -> list[Any]:
        """What the user was told of the room, as stripped events."""
        member = await self._rooms.stores.names.find_nid(user_id)
        if member is None:
            return []
        told = await self._db.run(stripped_state_of, room, member)
        return [] if told is None else msgspec.json.decode(told, type=list[Any])
