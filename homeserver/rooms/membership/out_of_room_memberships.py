"""Memberships in rooms that this server is not in: remote invites, knocks, and their end.

For such a room the server has only an event and stripped state. The event is stored as an outlier,
and cannot be checked: it is accepted from the server that it came from, which can change only its
own. So each server has its own pending entry for a user and a room. The oldest invite is shown, or
the knock if there is none. An invite from another server is stored as well, and is shown when that
one ends; a server without an entry can neither replace nor end anything. The number of pending
entries is bounded for each server and each user.

The servers are stored because an invite is rejected, and a knock withdrawn, through them: a room id
does not tell which servers are in the room.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.membership.blocked_rooms import BlockedRooms
from homeserver.rooms.room.changes import EventsStored, OutOfRoomMembershipChanged, membership_of
from homeserver.rooms.room.event_rows import event_rows, names_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_storage import unplaced_event
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
MAX_IN_ROOM = 5  # servers with a pending invite of one user to one room
MAX_BYTES_OF_USER = 4 << 20  # of events and stripped state
MAX_BYTES_OF_SERVER_TO_USER = 1 << 20
MAX_STRIPPED = 100  # events of one room
MAX_STRIPPED_EVENT = 8_192  # bytes; a larger one is left out
MAX_STRIPPED_BYTES = 32_768  # of all of them; events that do not fit are left out


class _Place(msgspec.Struct, frozen=True):
    """A user and a room, by the nids of both."""

    room: int
    member: int
    user_id: str


class OutOfRoomMemberships:
    """Stores the memberships of local users in rooms that this server is not in."""

    def __init__(
        self, db: Database, log: Log, names: Names, events: EventStore, rooms: RoomRegistry
    ) -> None:
        self._db = db
        self._log = log
        self._names = names
        self._events = events
        self._rooms = rooms
        self._blocked = BlockedRooms(db, rooms)
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def invited(self, event: Event, server: str, stripped: Sequence[Any]) -> None:
        """Store an invite that `server` has made and signed, with the room's stripped state.

        It is shown, unless another server's invite is. Returns when it is durable and the user's
        devices have been notified. Raises `Forbidden` if too much is pending, or if the room is
        blocked, and `Unavailable`.
        """
        await self._blocked.check(event.room_id)
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._pending(place)
            encoded = encode_stripped(stripped)
            if all(entry.server != server for entry in pending):
                await self._check_limits(
                    place, server, len(pending), len(encoded) + len(event.json)
                )
            is_second = any(
                entry.is_shown and entry.shown_membership == "invite" and entry.server != server
                for entry in pending
            )
            await self._keep(place, event, {server: encoded}, is_shown=not is_second)

    async def knocked(self, event: Event, server: str, stripped: Sequence[Any]) -> StoredEvent:
        """Store a local user's knock through `server`. Otherwise as `invited`."""
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            await self._pending(place)
            return await self._keep(place, event, {server: encode_stripped(stripped)})

    async def left(self, event: Event) -> StoredEvent:
        """Record that a local user has rejected all invites, or withdrawn their knock."""
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._db.run(pending_of, place.room, place.member)
            return await self._keep(place, event, ended=[entry.server for entry in pending])

    async def ended(self, event: Event, entries: Collection[PendingRow]) -> None:
        """Record that pending entries have ended, by an event of another user.

        If one of them was shown, another server's entry is shown from now on; if there is none, the
        leave. Raises `Unavailable`.
        """
        place = await self._place(event)
        async with self._locks.hold(place.user_id):
            pending = await self._db.run(pending_of, place.room, place.member)
            # A server may have renewed its invite while it was asked about the last one.
            event_nids = {entry.event for entry in entries}
            ended = [entry.server for entry in pending if entry.event in event_nids]
            rest = [entry for entry in pending if entry.event not in event_nids]
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
        """The pending entries of a user in a room, the one that is shown first."""
        member = await self._names.find_nid(user_id)
        return [] if member is None else await self._db.run(pending_of, room, member)

    async def servers(self, room: int, user_id: str) -> list[str]:
        """The servers of a user's pending invites or knock in a room."""
        return [entry.server for entry in await self.pending(room, user_id) if entry.server]

    async def forget(self, room_id: str, user_id: str) -> None:
        """Delete all pending entries: the user has joined."""
        nids = await self._names.find_nids([room_id, user_id])
        if len(nids) == 2:
            await self._db.run(forget_pending, nids[room_id], nids[user_id])

    async def stripped_state(self, room: int, user_id: str) -> list[Any]:
        """The stripped state that is shown to the user."""
        member = await self._names.find_nid(user_id)
        if member is None:
            return []
        stripped = await self._db.run(stripped_state_of, room, member)
        return [] if stripped is None else msgspec.json.decode(stripped, type=list[Any])

    async def _place(self, event: Event) -> _Place:
        user_id = event.state_key or ""
        nids = await self._names.nids([event.room_id, *names_of(event)])
        return _Place(nids[event.room_id], nids[user_id], user_id)

    async def _pending(self, place: _Place) -> list[PendingRow]:
        """The pending entries. Those from before a join do not count, though they may be stored."""
        pending = await self._db.run(pending_of, place.room, place.member)
        if not pending:
            await self._db.run(forget_pending, place.room, place.member)
        return pending

    async def _next_shown(self, version: RoomVersion, rest: Sequence[PendingRow]) -> Event | None:
        """The oldest remaining invite, or the knock."""
        event_nids = [entry.event for entry in rest]
        loaded = await self._events.load(version, event_nids)
        events = [loaded[event_nid].event for event_nid in event_nids]
        invites = [event for event in events if event.content.get("membership") == "invite"]
        return next(iter([*invites, *events]), None)

    async def _check_limits(self, place: _Place, server: str, in_room: int, size: int) -> None:
        totals = await self._db.run(pending_totals, place.member, server)
        if (
            totals.of_server >= MAX_OF_SERVER
            or totals.of_both >= MAX_OF_SERVER_TO_USER
            or totals.size_of_both + size > MAX_BYTES_OF_SERVER_TO_USER
        ):
            raise Forbidden("Too many invites of your server are pending")
        if (
            totals.of_user >= MAX_OF_USER
            or totals.size_of_user + size > MAX_BYTES_OF_USER
            or in_room >= MAX_IN_ROOM
        ):
            raise Forbidden("The user has too many pending invites")

    async def _keep(
        self,
        place: _Place,
        event: Event,
        pending: Mapping[str, bytes] | None = None,
        *,
        ended: Collection[str] = (),
        is_shown: bool = True,
    ) -> StoredEvent:
        """Store an event, with the entries that it adds and ends; `is_shown`: notify the user of
        it.
        """
        log, room, version = self._log, place.room, event.version
        nids = await self._names.nids([event.room_id, *names_of(event)])
        known = await self._events.find_many(version, room, event.room_id, [event.event_id])
        # If this server has joined the room meanwhile, the room's state is what counts.
        now = await self._rooms.find(event.room_id)
        if now is not None and self._rooms.local_server.server_name in now.joined_servers:
            is_shown = False
        log.check_open()
        # Another request may have stored the same event meanwhile.
        stored = self._events.cached_id(event.room_id, event.event_id) or known.get(event.event_id)
        rows: list[Row] = []
        if stored is None:
            stored = unplaced_event(log, event, EventStatus(is_outlier=True))
            rows += event_rows(self._names, room, stored)
        position = log.next_position()
        sender, membership = nids[event.sender], membership_of(stored)
        rows.append(INSERT_ROOM.row(room, version.identifier, sender))
        for server, stripped in (pending or {}).items():
            entry = (
                room,
                place.member,
                server,
                stored.event_nid,
                stripped,
                len(stripped) + len(event.json),
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
    """Stripped state as a JSON list, without events that are too large."""
    kept: list[bytes] = []
    left = MAX_STRIPPED_BYTES
    for event in events[:MAX_STRIPPED]:
        encoded = msgspec.json.encode(event)
        if len(encoded) <= min(left, MAX_STRIPPED_EVENT):
            kept.append(encoded)
            left -= len(encoded)
    return b"[" + b",".join(kept) + b"]"
