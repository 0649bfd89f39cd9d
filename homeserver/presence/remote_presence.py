"""The presence of other servers' users, as these servers tell it.

It is kept in memory alone: after a restart the others tell anew, when something changes or from
time to time. Whoever is not heard of for a while is taken to be offline, as their server may have
gone away.

Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deadlines import Deadlines
from homeserver.concurrency.lru_cache import LruCache
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import OFFLINE, State
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.streams.log import Log

Update = tuple[State, str | None, int | None]
"""State, status message, and how many milliseconds ago the user was active."""

log = Logger()

MAX_USERS = 50_000  # who are not offline; of more, those heard of longest ago are forgotten
REMOTE_PRESENCE_TTL_SECONDS = 30 * 60.0
MAX_NEWCOMERS = 100  # members that come at once; of more, this server is the newcomer
MAX_CACHED_UNKNOWN_USERS = 1_000
NEGATIVE_CACHE_SECONDS = 60.0


class RemotePresence:
    """Who is there on other servers. `apply` is to be subscribed to the log."""

    def __init__(self, log: Log, user_rooms: UserRooms, clock: Clock) -> None:
        self._log = log
        self._user_rooms = user_rooms
        self._clock = clock
        self._told: OrderedDict[str, PresenceChanged] = OrderedDict()
        self._heard: dict[str, float] = {}
        self._strangers: LruCache[str, tuple[float, Update]] = LruCache(
            "presence_of_strangers", MAX_CACHED_UNKNOWN_USERS
        )
        self._deadlines = Deadlines(clock, self._time_is_up)

    async def receive(
        self, user_id: str, state: State, status_msg: str | None, active_ago_ms: int | None
    ) -> None:
        """A server told of one of its users; readers are told where that is news.

        Users who share no room with any of ours are none of our business. But when one of ours
        comes into a room, the servers there may tell of its members before we know who they are.
        """
        rooms = tuple(await self._user_rooms.joined(user_id))
        if not rooms:
            update = state, status_msg, active_ago_ms
            self._strangers.put(user_id, (self._clock.seconds(), update))
            return
        now = self._clock.seconds()
        known = self._told.get(user_id)
        if state != OFFLINE:
            self._heard[user_id] = now
            self._deadlines.set(user_id, now + REMOTE_PRESENCE_TTL_SECONDS)
        before = (OFFLINE, None) if known is None else (known.state, known.status_msg)
        if (state, status_msg) == before:
            return
        active_ms = int(now * 1000) - active_ago_ms if active_ago_ms is not None else 0
        await self._publish(user_id, rooms, state, status_msg, active_ms)

    def find(self, user_id: str) -> PresenceChanged | None:
        """What readers were told of a user who is not offline."""
        return self._told.get(user_id)

    def present(self) -> Iterable[PresenceChanged]:
        """What readers were told of all who are not offline, with the rooms they are in now."""
        return self._told.values()

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: keep in mind who is in which room."""
        if not self._told and not self._strangers:
            return
        for fact in facts:
            if isinstance(fact, StateChanged):
                is_new_here = len(fact.changes) > MAX_NEWCOMERS
                for user_id, membership, _ in fact.members():
                    told = self._told.get(user_id)
                    if told is not None:
                        self._follow(told, fact.room_nid, membership, is_shown=not is_new_here)
                    elif membership == "join":
                        self._meet(user_id)

    def stop(self) -> None:
        """Let nobody go offline any more: the server is going down."""
        self._deadlines.stop()

    def _follow(self, told: PresenceChanged, room: int, membership: str, *, is_shown: bool) -> None:
        """Keep a user's rooms true; who comes into a room is shown to those who are there."""
        others = tuple(other for other in told.rooms if other != room)
        if membership != "join":
            told = replace(told, rooms=others)
        elif room not in told.rooms:
            if is_shown:
                told = replace(told, position=self._log.next_position(), rooms=(room,))
                self._log.append(told)
            told = replace(told, rooms=(*others, room))
        self._told[told.user_id] = told

    def _meet(self, user_id: str) -> None:
        """Take what was told of a user when nobody here knew them yet."""
        heard_at, update = self._strangers.pop(user_id) or (0.0, None)
        if update is not None and self._clock.seconds() - heard_at < NEGATIVE_CACHE_SECONDS:
            taking = Deferred.fromCoroutine(self.receive(user_id, *update))
            taking.addErrback(lambda failure: log.failure("presence is not told", failure))

    def _publish(
        self,
        user_id: str,
        rooms: tuple[int, ...],
        state: State,
        status_msg: str | None,
        active_ms: int,
    ) -> Deferred[None]:
        self._log.check_open()
        position = self._log.next_position()
        told = PresenceChanged(position, user_id, rooms, state, status_msg, max(active_ms, 0))
        if state == OFFLINE:
            self._told.pop(user_id, None)
            self._heard.pop(user_id, None)
        else:
            self._told[user_id] = told
            self._told.move_to_end(user_id)
            if len(self._told) > MAX_USERS:
                oldest, _ = self._told.popitem(last=False)
                self._heard.pop(oldest, None)
        return self._log.append(told)

    def _time_is_up(self, user_id: str) -> None:
        told, heard = self._told.get(user_id), self._heard.get(user_id)
        if told is None or heard is None:
            return
        left = heard + REMOTE_PRESENCE_TTL_SECONDS - self._clock.seconds()
        if left > 0:
            self._deadlines.set(user_id, self._clock.seconds() + left)
            return
        try:
            self._publish(user_id, told.rooms, OFFLINE, told.status_msg, told.last_active_ms)
        except Unavailable:
            self._deadlines.set(user_id, self._clock.seconds() + REMOTE_PRESENCE_TTL_SECONDS)
