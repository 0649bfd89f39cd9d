"""Typing notices: who is typing in which room, kept in memory and forgotten when the time is up.

A client replaces what it shows by the list of a room, so only the list is kept, and the position of
its last change, which a reader compares with their token. Lists and positions are those of this
process. At a start nobody is typing, but a client that was connected before may still show
somebody; so a token from before the start finds an empty list in each of the rooms that were
`lively` then. Somebody who had just begun to type in any other room is shown there until the next
notice or, in most clients, until they send their message.

Spec: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
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
MAX_CHANGED = 100_000  # rooms whose last change is remembered


@dataclass(frozen=True, slots=True)
class TypingChanged:
    """A user began or stopped typing. Nothing of it is stored."""

    position: int
    room: int
    user_id: str
    typing: bool


class TypingUsers:
    """Who is typing. `apply` is to be subscribed to the log, after the rooms.

    `boot_position` is the log's position at the start of the process, `lively` the numbers of the
    rooms in which something was sent shortly before.
    """

    def __init__(
        self,
        rooms: RoomRegistry,
        log: Log,
        clock: Clock,
        boot_position: int,
        lively: Collection[int] = (),
    ) -> None:
        self._rooms = rooms
        self._log = log
        self._clock = clock
        self._boot_position = boot_position
        self._lively = frozenset(lively)
        self._typing: dict[int, dict[str, DelayedCall]] = {}  # by room and user: the end of it
        self._changed: OrderedDict[int, int] = OrderedDict()  # least recently changed first

    async def set(
        self, caller: Requester, room_id: str, user_id: str, typing: bool, timeout_ms: int
    ) -> None:
        """Say that the caller types for the next `timeout_ms`, or has stopped.

        Longer times than two minutes are cut. Raises `Forbidden` for another user than the caller,
        and outside of the room.
        """
        if user_id != caller.user_id:
            raise Forbidden("You can only type for yourself")
        room = await self._rooms.find(room_id)
        if room is None or room.membership(user_id) != "join":
            raise Forbidden("You are not in the room")
        self._log.check_open()
        done = self.note(room.room_nid, user_id, timeout_ms if typing else 0)
        if done is not None:
            await done

    def note(self, room: int, user_id: str, timeout_ms: int) -> Deferred[None] | None:
        """A user of any server types in a room for this long; 0 is for one who has stopped.

        The Deferred fires when readers know of it; `None` where nothing changes for them.
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
        return None if timer is not None else self._tell(room, user_id, True)

    def list_since(self, room: int, since: int | None) -> list[str] | None:
        """Who is typing in a room, those who began first in front; `None` if unchanged since.

        For `since=None` this is `None` where nobody has typed lately: who begins anew may still
        show who did.
        """
        if since is None:
            is_known = room in self._typing or room in self._changed
            return list(self._typing.get(room, ())) if is_known else None
        return list(self._typing.get(room, ())) if self.may_have_changed(room, since) else None

    def may_have_changed(self, room: int, since: int) -> bool:
        """Whether who is typing in a room is worth telling to one who knows it as of `since`."""
        return self._changed.get(room, 0) > since or self._may_show_the_past(room, since)

    async def ephemeral_events(
        self, room: Room, user_id: str, since: int | None
    ) -> Sequence[msgspec.Raw]:
        """The `m.typing` event of a room, if its list changed above `since`."""
        users = self.list_since(room.room_nid, since)
        if users is None:
            return ()
        event = {"type": TYPING, "content": {"user_ids": users}}
        return (msgspec.Raw(msgspec.json.encode(event)),)

    async def changed_rooms(self, rooms: Iterable[int], since: int) -> frozenset[int]:
        """Those of the rooms whose list changed above a position."""
        return frozenset(room for room in rooms if self.may_have_changed(room, since))

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: who leaves a room types there no more."""
        for fact in facts:
            if isinstance(fact, StateChanged) and fact.room_nid in self._typing:
                for user_id, membership, _ in fact.members():
                    if membership != "join":
                        self.note(fact.room_nid, user_id, 0)

    def stop(self) -> None:
        """Cancel all timers: the server is going down."""
        for users in self._typing.values():
            for timer in users.values():
                timer.cancel()
        self._typing.clear()

    def _may_show_the_past(self, room: int, since: int) -> bool:
        return since < self._boot_position and room in self._lively

    def _stop(self, room: int, user_id: str) -> Deferred[None]:
        users = self._typing[room]
        del users[user_id]
        if not users:
            del self._typing[room]
        return self._tell(room, user_id, False)

    def _tell(self, room: int, user_id: str, typing: bool) -> Deferred[None]:
        position = self._log.next_position()
        self._changed[room] = position
        self._changed.move_to_end(room)
        # Beyond the bound the rooms are forgotten that were silent for longest.
        if len(self._changed) > MAX_CHANGED:
            self._changed.popitem(last=False)
        return self._log.append(TypingChanged(position, room, user_id, typing))
