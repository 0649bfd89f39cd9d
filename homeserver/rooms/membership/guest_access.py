"""Guest access: guests leave when a room no longer allows guests.

This subscribes to the log. When `m.room.guest_access` stops saying `can_join`, each joined local
guest gets a member event with `leave`, sent as the guest: the server has no power in the room, and
every user may leave.

Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from homeserver.protocol.errors import Unavailable
from homeserver.protocol.event_types import GUEST_ACCESS_KEY
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.room.changes import EventAppended, StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.accounts.users import guests_among
from homeserver.storage.database.database import Database, DatabaseUnavailable

RETRY_SECONDS = 5.0
log = Logger()


class GuestAccess:
    """Removes guests from rooms. Subscribe `apply` to the log after `RoomRegistry.apply`.

    `stop` it before the database closes.
    """

    def __init__(
        self, db: Database, clock: IReactorTime, rooms: RoomRegistry, forced_leaves: ForcedLeaves
    ) -> None:
        self._db = db
        self._clock = clock
        self._rooms = rooms
        self._forced_leaves = forced_leaves
        self._waiting: dict[int, None] = {}  # nids of rooms to check, in order
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether there are rooms with guests to remove."""
        return self._running is not None

    def apply(self, entries: Sequence[Any]) -> None:
        """Check rooms whose guest access changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged) and GUEST_ACCESS_KEY in entry.changes:
                # A room's first log entry has a version: no guest can be in the room yet.
                is_new = isinstance(entry, EventAppended) and entry.version is not None
                if not is_new:
                    self._check_later(entry.room_nid)

    async def stop(self) -> None:
        """Begin nothing more; returns when the work in progress has ended."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
        if self._running is not None:
            await self._running

    def _check_later(self, room_nid: int) -> None:
        self._waiting[room_nid] = None
        if self._running is None and not self._stopped:
            self._running = ensureDeferred(self._run())
            self._running.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._running = None

    async def _run(self) -> None:
        while self._waiting and not self._stopped:
            room_nid = next(iter(self._waiting))
            del self._waiting[room_nid]
            try:
                await self._remove_guests(room_nid)
            except (Unavailable, DatabaseUnavailable):
                self._waiting[room_nid] = None
                await self._wait_for_database()
            except Exception:
                log.failure(
                    "could not remove the guests of the room with nid {room_nid}", room_nid=room_nid
                )

    async def _remove_guests(self, room_nid: int) -> None:
        room = await self._rooms.by_number(room_nid)
        if room is None or await self._admits_guests(room):
            return
        local = [
            user_id
            for user_id in room.joined_members()
            if self._rooms.local_server.is_local(user_id)
        ]
        for user_id in await self._db.run(guests_among, local):
            await self._forced_leaves.leave(room.room_id, user_id)

    async def _admits_guests(self, room: Room) -> bool:
        """Whether the room allows guests again."""
        stored = (await self._rooms.current(room, [GUEST_ACCESS_KEY])).get(GUEST_ACCESS_KEY)
        return stored is not None and admits_guests(stored.shown.content)

    async def _wait_for_database(self) -> None:
        """Wait for the database to be available again."""
        self._pause = deferLater(self._clock, RETRY_SECONDS)
        with suppress(CancelledError):
            await self._pause
        self._pause = None


def admits_guests(content: Mapping[str, Any]) -> bool:
    """Whether a room with this `m.room.guest_access` allows guests."""
    return content.get("guest_access") == "can_join"
