"""Typing notifications: the users who are typing in each room, in memory, with timeouts.

A client replaces what it shows by the list of a room, so only the list is kept, and the position of
its last change, which is compared with the reader's token. Lists and positions are those of this
process. At a start no user is typing, but a client that was connected before may still show one; so
a token from before the start finds an empty list in each of the rooms that were recently active
then. A user who had just begun to type in any other room is shown there until the next notification
or, in most clients, until they send their message.

Spec: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_types import TYPING
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.streams.log import Log

MAX_TIMEOUT_MS = 120_000
MAX_CHANGED = 100_000  # rooms with a remembered last change


class TypingChanged(msgspec.Struct, frozen=True):
    """A user began or stopped typing. Nothing of it is stored."""

    position: int
    room: int
    user_id: str
    typing: bool


class TypingUsers:
    """The users who are typing. Subscribe `apply` to the log, after the rooms.

    `boot_position` is the log's position at the start of the process, `recently_active` the nids of
    the rooms in which an event was sent shortly before.
    """

    def __init__(
        self,
        rooms: RoomRegistry,
        log: Log,
        clock: Clock,
        boot_position: int,
        recently_active: Collection[int] = (),
    ) -> None:
        self._rooms = rooms
        self._log = log
        self._clock = clock
        self._boot_position = boot_position
        self._recently_active = frozenset(recently_active)
        self._typing: dict[int, dict[str, DelayedCall]] = {}  # by room and user: the timeout
        self._changed: OrderedDict[int, int] = OrderedDict()  # least recently changed first

    async def set(
        self, caller: Requester, room_id: str, user_id: str, typing: bool, timeout_ms: int
    ) -> None:
        """Set that the caller types for the next `timeout_ms`, or has stopped.

        Times above two minutes are shortened. Raises `Forbidden` for another user than the caller,
        and outside of the room.
        """
        if user_id != caller.user_id:
            raise Forbidden("You can set only your own typing status")
        room = await self._rooms.find(room_id)
        if room is None or room.membership(user_id) != "join":
            raise Forbidden("You are not in the room")
        self._log.check_open()
        done = self.note(room.room_nid, user_id, timeout_ms if typing else 0)
        if done is not None:
            await done

    def note(self, room: int, user_id: str, timeout_ms: int) -> Deferred[None] | None:
        """Record that a user of any server types in a room for this long; 0 if they have stopped.

        The Deferred fires when the change is published; `None` if nothing changes.
        """
        users = self._typing.get(room, {})
        timer = users.get(user_id)
        if timer is not None:
            timer.cancel()
        if timeout_ms <= 0:
            return None if timer is None else self._stop(room, user_id)
        seconds = min(timeout_ms, MAX_TIMEOUT_MS) / 1000
        self._typing.setdefault(room, users)
        users[user_id] = self._clock.callLater(seconds, self._stop, room, user_id)
        return None if timer is not None else self._publish(room, user_id, True)

    def list_since(self, room: int, since: int | None) -> list[str] | None:
        """The users typing in a room, in the order in which they began; `None` if unchanged since.

        For `since=None` this is `None` if no user has typed lately: a client that starts again may
        still show one.
        """
        if since is None:
            is_known = room in self._typing or room in self._changed
            return list(self._typing.get(room, ())) if is_known else None
        return list(self._typing.get(room, ())) if self.may_have_changed(room, since) else None

    def may_have_changed(self, room: int, since: int) -> bool:
        """Whether the list of a room is new for a reader who knows it as of `since`."""
        return self._changed.get(room, 0) > since or self._may_show_former_users(room, since)

    async def ephemeral_events(
        self, room: Room, user_id: str, since: int | None
    ) -> Sequence[msgspec.Raw]:
        """The `m.typing` event of a room, if its list changed above `since`."""
        users = self.list_since(room.room_nid, since)
        if users is None:
            return ()
        event = {"type": TYPING, "content": {"user_ids": users}}
        return (msgspec.Raw(msgspec.json.encode(event)),)

    async def get_ready(self, rooms: Iterable[int]) -> None:
        """Nothing has to be read."""

    async def changed_rooms(self, rooms: Iterable[int], since: int) -> frozenset[int]:
        """Those of the rooms whose list changed above a position."""
        return frozenset(room for room in rooms if self.may_have_changed(room, since))

    def apply(self, entries: Sequence[Any]) -> None:
        """Remove users who leave a room (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged) and entry.room_nid in self._typing:
                for user_id, membership, _ in entry.members():
                    if membership != "join":
                        self.note(entry.room_nid, user_id, 0)

    def stop(self) -> None:
        """Cancel all timers, at shutdown."""
        for users in self._typing.values():
            for timer in users.values():
                timer.cancel()
        self._typing.clear()

    def _may_show_former_users(self, room: int, since: int) -> bool:
        return since < self._boot_position and room in self._recently_active

    def _stop(self, room: int, user_id: str) -> Deferred[None]:
        users = self._typing[room]
        del users[user_id]
        if not users:
            del self._typing[room]
        return self._publish(room, user_id, False)

    def _publish(self, room: int, user_id: str, typing: bool) -> Deferred[None]:
        position = self._log.next_position()
        self._changed[room] = position
        self._changed.move_to_end(room)
        # Beyond the bound the rooms without changes for longest are forgotten.
        if len(self._changed) > MAX_CHANGED:
            self._changed.popitem(last=False)
        return self._log.append(TypingChanged(position, room, user_id, typing))
