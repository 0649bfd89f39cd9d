"""Guest access: guests leave when a room takes no guests any more.

A reader of the log. When `m.room.guest_access` stops saying `can_join`, each guest of this server
who is joined gets a member event with `leave`, sent as the guest: the server is nobody in the room,
and everybody may leave.

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
    """Removes guests from rooms. Its `apply` subscribes to the log after `RoomRegistry.apply`.

    `stop` it before the database closes.
    """

    def __init__(
        self, db: Database, clock: IReactorTime, rooms: RoomRegistry, departures: ForcedLeaves
    ) -> None:
        self._db = db
        self._clock = clock
        self._rooms = rooms
        self._forced_leaves = departures
        self._waiting: dict[int, None] = {}  # numbers of rooms to look at, in their order
        self._running: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._stopped = False

    @property
    def is_busy(self) -> bool:
        """Whether there are rooms with guests to remove."""
        return self._running is not None

    def apply(self, facts: Sequence[Any]) -> None:
        """Reader of the log."""
        for fact in facts:
            if isinstance(fact, StateChanged) and GUEST_ACCESS_KEY in fact.changes:
                # The first event of a room comes with a version: nobody is there yet.
                is_new = isinstance(fact, EventAppended) and fact.version is not None
                if not is_new:
                    self._look_at(fact.room_nid)

    async def stop(self) -> None:
        """Begin nothing more; returns when nothing is under way."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
        if self._running is not None:
            await self._running

    def _look_at(self, number: int) -> None:
        self._waiting[number] = None
        if self._running is None and not self._stopped:
            self._running = ensureDeferred(self._run())
            self._running.addCallback(self._ended)

    def _ended(self, _: None) -> None:
        self._running = None

    async def _run(self) -> None:
        while self._waiting and not self._stopped:
            number = next(iter(self._waiting))
            del self._waiting[number]
            try:
                await self._remove_guests(number)
            except (Unavailable, DatabaseUnavailable):
                self._waiting[number] = None
                await self._rest()
            except Exception:
                log.failure("could not remove the guests of room {number}", number=number)

    async def _remove_guests(self, number: int) -> None:
        room = await self._rooms.by_number(number)
        if room is None or await self._admits_guests(room):
            return
        ours = [
            user_id
            for user_id in room.joined_members()
            if self._rooms.local_server.is_local(user_id)
        ]
        for user_id in await self._db.run(guests_among, ours):
            await self._forced_leaves.leave(room.room_id, user_id)

    async def _admits_guests(self, room: Room) -> bool:
        """Whether the room changed its mind meanwhile."""
        stored = (await self._rooms.current(room, [GUEST_ACCESS_KEY])).get(GUEST_ACCESS_KEY)
        return stored is not None and admits_guests(stored.shown.content)

    async def _rest(self) -> None:
        """Wait for the database to come back."""
        self._pause = deferLater(self._clock, RETRY_SECONDS)
        with suppress(CancelledError):
            await self._pause
        self._pause = None


def admits_guests(content: Mapping[str, Any]) -> bool:
    """Whether a room with this `m.room.guest_access` takes guests."""
    return content.get("guest_access") == "can_join"
