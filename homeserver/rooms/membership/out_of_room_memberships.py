"""Memberships in rooms that this server is not in: remote invites, knocks, and their end.

All that is known of such a room is an event and some stripped state. The event is kept as an
outlier, which nothing here can judge: the server that it came from answers for it, and for nothing
else. So each server has an own pending entry for a user and a room. The oldest invite is shown, or
the knock if there is none. An invite from another server is kept beside it, and is shown when that
one ends; who has no entry can neither replace nor end anything. What may be pending is bounded for
each server and each user.

The servers are remembered since an invite is declined, and a knock taken back, by way of them: the
id of a room does not tell who is in it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.room.changes import EventsStored, OutOfRoomMembershipChanged, membership_of
from homeserver.rooms.room.event_rows import event_rows, names_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import (
    DELETE_OUT_OF_ROOM_MEMBERSHIP,
    UPSERT_MEMBERSHIP,
    UPSERT_OUT_OF_ROOM_MEMBERSHIP,
    PendingRow,
    forget_pending,
    pending_of,
    pending_totals,
    stripped_state_of,
)
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.rooms import INSERT_ROOM
from homeserver.streams.log import Log

MAX_OF_SERVER = 5_000  # pending invites that one server has made, of all users
MAX_OF_USER = 500  # pending invites of one user, from all servers
MAX_OF_SERVER_TO_USER = 100
MAX_IN_ROOM = 5  # servers that one user has pending invites of, to one room
MAX_BYTES_OF_USER = 4 << 20  # of events and stripped state
MAX_BYTES_OF_SERVER_TO_USER = 1 << 20
MAX_STRIPPED = 100  # events that are told of a room
MAX_STRIPPED_EVENT = 8_192  # bytes; a larger one is left out
MAX_STRIPPED_BYTES = 32_768  # of all of them; what does not fit any more is left out


@dataclass(frozen=True, slots=True)
class _Place:
    """A user's place in a room, by the numbers of both."""

    room: int
    member: int
    user_id: str


class OutOfRoomMemberships:
    """Keeps what happens to users of this server in rooms that it is not in."""

    def __init__(
        self, db: Database, log: Log, names: Names, events: EventStore, rooms: RoomRegistry
    ) -> None:
        self._db = db
        self._log = log
        self._names = names
        self._events = events
        self._rooms = rooms
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def invited(self, event: Event, server: str, stripped: Sequence[Any]) -> None:
        """Keep an invite that `server` has made and signed, and what it tells of the room.

        It is shown, unless another server's invite is. Returns when it is durable and the user's
        devices know. Raises `Forbidden` where too much is pending, and `Unavailable`.
        """
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._pending(place)
            told = encode_stripped(stripped)
            if all(entry.server != server for entry in pending):
                await self._check_limits(place, server, len(pending), len(told) + len(event.json))
            is_second = any(
                entry.is_shown and entry.shown_membership == "invite" and entry.server != server
                for entry in pending
            )
            await self._keep(place, event, {server: told}, is_shown=not is_second)

    async def knocked(self, event: Event, server: str, stripped: Sequence[Any]) -> StoredEvent:
        """Keep a knock of a user of ours by way of `server`. Otherwise as `invited`."""
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            await self._pending(place)
            return await self._keep(place, event, {server: encode_stripped(stripped)})

    async def left(self, event: Event) -> StoredEvent:
        """Keep that a user of ours has declined all invites, or taken back their knock."""
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._db.run(pending_of, place.room, place.member)
            return await self._keep(place, event, ended=[entry.server for entry in pending])

    async def ended(self, event: Event, entries: Collection[PendingRow]) -> None:
        """Keep that what was pending has ended, by an event of another user.

        If that was shown, what another server has made is shown from now on; where there is
        nothing, that the user is out. Raises `Unavailable`.
        """
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._db.run(pending_of, place.room, place.member)
            # A server may have renewed its invite while it was asked about the last one.
            numbers = {entry.event for entry in entries}
            ended = [entry.server for entry in pending if entry.event in numbers]
            rest = [entry for entry in pending if entry.event not in numbers]
            if not ended:
                return
            if any(entry.is_shown for entry in rest):
                self._log.check_open()
                rows = _ended_rows(place, ended)
                position = self._log.next_position()
                await self._log.append(EventsStored(position, place.room, ()), rows)
                return
            shown = await self._next_shown(event.version, rest)
            await self._keep(place, shown or event, ended=ended)

    async def pending(self, room: int, user_id: str) -> list[PendingRow]:
        """What is pending for a user in a room, the one that is shown first."""
        member = await self._names.find_nid(user_id)
        return [] if member is None else await self._db.run(pending_of, room, member)

    async def servers(self, room: int, user_id: str) -> list[str]:
        """The servers by way of which a user is invited to a room, or has knocked at it."""
        return [entry.server for entry in await self.pending(room, user_id) if entry.server]

    async def forget(self, room_id: str, user_id: str) -> None:
        """A user has joined: nothing is pending any more."""
        nids = await self._names.find_nids([room_id, user_id])
        if len(nids) == 2:
            await self._db.run(forget_pending, nids[room_id], nids[user_id])

    async def stripped_state(self, room: int, user_id: str) -> list[Any]:
        """What the user is shown of the room, as stripped events."""
        member = await self._names.find_nid(user_id)
        if member is None:
            return []
        told = await self._db.run(stripped_state_of, room, member)
        return [] if told is None else msgspec.json.decode(told, type=list[Any])

    async def _place(self, event: Event) -> _Place:
        user_id = event.state_key or ""
        nids = await self._names.nids([event.room_id, *names_of(event)])
        return _Place(nids[event.room_id], nids[user_id], user_id)

    async def _pending(self, place: _Place) -> list[PendingRow]:
        """What is pending. What was when the user joined is gone, though its rows may be there."""
        pending = await self._db.run(pending_of, place.room, place.member)
        if not pending:
            await self._db.run(forget_pending, place.room, place.member)
        return pending

    async def _next_shown(self, version: RoomVersion, rest: Sequence[PendingRow]) -> Event | None:
        """The oldest invite that is left, or the knock."""
        numbers = [entry.event for entry in rest]
        loaded = await self._events.load(version, numbers)
        events = [loaded[number].event for number in numbers]
        invites = [event for event in events if event.content.get("membership") == "invite"]
        return next(iter([*invites, *events]), None)

    async def _check_limits(self, place: _Place, server: str, in_room: int, size: int) -> None:
        totals = await self._db.run(pending_totals, place.member, server)
        if (
            totals.of_server >= MAX_OF_SERVER
            or totals.of_both >= MAX_OF_SERVER_TO_USER
            or totals.size_of_both + size > MAX_BYTES_OF_SERVER_TO_USER
        ):
            raise Forbidden("Too many invites of your server wait to be answered")
        if (
            totals.of_user >= MAX_OF_USER
            or totals.size_of_user + size > MAX_BYTES_OF_USER
            or in_room >= MAX_IN_ROOM
        ):
            raise Forbidden("The user has too many invites that wait to be answered")

    async def _keep(
        self,
        place: _Place,
        event: Event,
        pending: Mapping[str, bytes] | None = None,
        *,
        ended: Collection[str] = (),
        is_shown: bool = True,
    ) -> StoredEvent:
        """Store an event, what is pending by it and what is not any more; show the event or not."""
        log, room, version = self._log, place.room, event.version
        nids = await self._names.nids([event.room_id, *names_of(event)])
        known = await self._events.find_many(version, room, event.room_id, [event.event_id])
        # If this server has come into the room meanwhile, the room's state is what counts.
        now = await self._rooms.find(event.room_id)
        if now is not None and self._rooms.local_server.server_name in now.joined_servers:
            is_shown = False
        log.check_open()
        position = log.next_position()
        # Another request may have brought the same event since it was looked for.
        stored = self._events.cached_id(event.room_id, event.event_id) or known.get(event.event_id)
        rows: list[Row] = []
        if stored is None:
            stored = StoredEvent(
                event, position, None, EMPTY, EMPTY, standing=EventStatus(is_outlier=True)
            )
            rows += event_rows(self._names, room, stored)
        sender, membership = nids[event.sender], membership_of(stored)
        rows.append(INSERT_ROOM.row(room, version.identifier, sender, False))
        for server, told in (pending or {}).items():
            entry = (
                room,
                place.member,
                server,
                stored.event_nid,
                told,
                len(told) + len(event.json),
            )
            rows.append(UPSERT_OUT_OF_ROOM_MEMBERSHIP.row(*entry))
        rows += _ended_rows(place, ended)
        self._events.add(stored)
        if not is_shown:
            await log.append(EventsStored(position, room, [stored]), rows)
            return stored
        rows.append(
            UPSERT_MEMBERSHIP.row(
                place.member, room, membership, stored.event_nid, position, sender
            )
        )
        await log.append(
            OutOfRoomMembershipChanged(position, room, place.user_id, membership, stored), rows
        )
        return stored


def _ended_rows(place: _Place, servers: Collection[str]) -> list[Row]:
    return [
        DELETE_OUT_OF_ROOM_MEMBERSHIP.row(place.room, place.member, server) for server in servers
    ]


def encode_stripped(events: Sequence[Any]) -> bytes:
    """Stripped state as a JSON list, without what is too large."""
    kept: list[bytes] = []
    left = MAX_STRIPPED_BYTES
    for event in events[:MAX_STRIPPED]:
        encoded = msgspec.json.encode(event)
        if len(encoded) <= min(left, MAX_STRIPPED_EVENT):
            kept.append(encoded)
            left -= len(encoded)
    return b"[" + b",".join(kept) + b"]"
