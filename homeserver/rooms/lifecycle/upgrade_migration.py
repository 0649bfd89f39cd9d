"""Succession: what users have set for a room holds for the room that replaces it.

A reader of the log. When a user of this server joins a room that names a predecessor, their tags,
their push rules and the like are copied from the old room by the functions in `carry_over`. Anybody
can name any predecessor, so the old room has to confirm it by its tombstone, unless it was the user
who made the new one.

What this server itself has of the old room, aliases and a place in the room directory, moves with
them, by the functions in `move`, if the tombstone confirms the new room. At the server of the user
who upgraded the room all of it has moved already.

If the server stops in between, the user keeps their settings for the old room only.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from homeserver.protocol.errors import Unavailable
from homeserver.protocol.event_types import CREATE_KEY, TOMBSTONE_KEY
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import DatabaseUnavailable

CarryOver = Callable[[str, str, str], Awaitable[None]]
"""Copies settings of a user (their id) from one room to another (the ids of both)."""

Move = Callable[[Room, Room], Awaitable[None]]
"""Moves what this server has of a room to another one."""

log = Logger()


class UpgradeMigration:
    """Carries settings over. `apply` is to be subscribed to the log, after `RoomRegistry.apply`.

    `stop` it before the database closes.
    """

    def __init__(
        self, rooms: RoomRegistry, carry_over: Sequence[CarryOver], move: Sequence[Move]
    ) -> None:
        self._rooms = rooms
        self._carry_over = carry_over
        self._move = move
        self._waiting: dict[tuple[int, str], None] = {}  # room numbers and users, in their order
        self._running: Deferred[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is somebody whose settings are still to be copied."""
        return self._running is not None

    def apply(self, facts: Sequence[Any]) -> None:
        """Reader of the log."""
        for fact in facts:
            if isinstance(fact, StateChanged):
                for user_id, membership, stored in fact.members():
                    if (
                        membership == "join"
                        and self._rooms.local_server.is_local(user_id)
                        and stored is not None
                        and not _was_joined(stored)
                    ):
                        self._waiting[fact.room_nid, user_id] = None
        if self._waiting and self._running is None:
            running = self._running = ensureDeferred(self._run())
            running.addCallback(self._ended)

    async def stop(self) -> None:
        """Begin nothing more; returns when nothing is under way."""
        self._waiting.clear()
        if self._running is not None:
            await self._running

    def _ended(self, _: None) -> None:
        self._running = None

    async def _run(self) -> None:
        while self._waiting:
            number, user_id = next(iter(self._waiting))
            del self._waiting[number, user_id]
            try:
                await self._settle(number, user_id)
            except (Unavailable, DatabaseUnavailable) as error:
                log.warn(
                    "settings of {user_id} were not carried over: {error}",
                    user_id=user_id,
                    error=error,
                )
            except Exception:
                log.failure("could not carry over settings of {user_id}", user_id=user_id)

    async def _settle(self, number: int, user_id: str) -> None:
        room = await self._rooms.by_number(number)
        if room is None:
            return
        creator, old = await self._predecessor(room)
        if old is None:
            return
        is_confirmed = await self._is_replaced(old, room)
        if is_confirmed:
            for move in self._move:
                await move(old, room)
        if is_confirmed or creator == user_id:
            for carry_over in self._carry_over:
                await carry_over(user_id, old.room_id, room.room_id)

    async def _predecessor(self, room: Room) -> tuple[str, Room | None]:
        """The creator of a room, and the room that it says it replaces."""
        create = (await self._rooms.current(room, [CREATE_KEY]))[CREATE_KEY].event
        named = create.content.get("predecessor")
        old_id = named.get("room_id") if isinstance(named, dict) else None
        old = await self._rooms.find(old_id) if isinstance(old_id, str) else None
        return create.sender, old

    async def _is_replaced(self, old: Room, room: Room) -> bool:
        """Whether a room says that another one has replaced it."""
        tombstone = (await self._rooms.current(old, [TOMBSTONE_KEY])).get(TOMBSTONE_KEY)
        return tombstone is not None and (
            tombstone.shown.content.get("replacement_room") == room.room_id
        )


def _was_joined(stored: StoredEvent) -> bool:
    """Whether a member was joined already: a new name comes in the same way."""
    before = stored.replaced
    return before is not None and before.content.get("membership") == "join"
