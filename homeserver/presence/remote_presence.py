"""The presence of remote users, as their servers report it.

It is kept in memory only: after a restart other servers send it again, on changes or periodically.
A user of whom nothing is received for a while counts as offline: their server may be unavailable.

Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deadlines import Deadlines
from homeserver.concurrency.lru_cache import LruCache
from homeserver.presence.flapping import Flapping
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import OFFLINE, State
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.streams.log import Log

Update = tuple[State, str | None, int | None]
"""State, status message, and how many milliseconds ago the user was active."""

log = Logger()

MAX_USERS = 50_000  # who are not offline; beyond it the least recently updated are evicted
REMOTE_PRESENCE_TTL_SECONDS = 30 * 60.0
RETRY_SECONDS = 5.0
MAX_NEWCOMERS = 100  # members that join in one change; with more, this server has joined
MAX_CACHED_UNKNOWN_USERS = 1_000
NEGATIVE_CACHE_SECONDS = 60.0


class RemotePresence:
    """Tracks the presence of remote users. `apply` is to be subscribed to the log."""

    def __init__(self, log: Log, user_rooms: UserRooms, clock: Clock) -> None:
        self._log = log
        self._user_rooms = user_rooms
        self._clock = clock
        self._published: OrderedDict[str, PresenceChanged] = OrderedDict()
        self._received_at: dict[str, float] = {}
        self._unknown_users: LruCache[str, tuple[float, Update]] = LruCache(
            "presence_of_unknown_users", MAX_CACHED_UNKNOWN_USERS
        )
        self._deadlines = Deadlines(clock, self._expire)
        self._flapping = Flapping(clock)
        self._settling: dict[str, tuple[State, str | None, int]] = {}  # with the last activity, ms

    async def receive(
        self, user_id: str, state: State, status_msg: str | None, active_ago_ms: int | None
    ) -> None:
        """Apply the presence that a server sent of one of its users; publish it if it changed.

        The presence of users who share no room with a local user is not published. It is kept for a
        while, since servers may send it before this server has the members of a room just joined.
        """
        rooms = tuple(await self._user_rooms.joined(user_id))
        if not rooms:
            update = state, status_msg, active_ago_ms
            self._unknown_users.put(user_id, (self._clock.seconds(), update))
            return
        now = self._clock.seconds()
        if state != OFFLINE:
            self._received_at[user_id] = now
            self._deadlines.set(user_id, now + REMOTE_PRESENCE_TTL_SECONDS)
        active_ms = int(now * 1000) - active_ago_ms if active_ago_ms is not None else 0
        if user_id in self._settling:
            self._settling[user_id] = state, status_msg, active_ms
        elif self._is_new(user_id, state, status_msg):
            due = self._flapping.next(user_id)
            if due is None:
                await self._publish(user_id, rooms, state, status_msg, active_ms)
            else:
                self._settling[user_id] = state, status_msg, active_ms
                due.addCallback(lambda _: self._settle(user_id))

    def _settle(self, user_id: str) -> None:
        settling = Deferred.fromCoroutine(self._publish_settled(user_id))
        settling.addErrback(_log_failure)

    async def _publish_settled(self, user_id: str) -> None:
        """Publish what the presence of a user is after it flapped; later, if that is impossible."""
        try:
            rooms = tuple(await self._user_rooms.joined(user_id))
            self._log.check_open()
        except Unavailable:
            self._deadlines.set(user_id, self._clock.seconds() + RETRY_SECONDS)
            return
        except Exception:
            # What comes later must not wait for this one.
            self._settling.pop(user_id, None)
            raise
        settled = self._settling.pop(user_id, None)
        if settled is not None and rooms and self._is_new(user_id, *settled[:2]):
            self._deadlines.set(user_id, self._clock.seconds() + REMOTE_PRESENCE_TTL_SECONDS)
            await self._publish(user_id, rooms, *settled)

    def _is_new(self, user_id: str, state: State, status_msg: str | None) -> bool:
        known = self._published.get(user_id)
        before = (OFFLINE, None) if known is None else (known.state, known.status_msg)
        return (state, status_msg) != before

    def find(self, user_id: str) -> PresenceChanged | None:
        """The published presence of a user who is not offline."""
        return self._published.get(user_id)

    def present(self) -> Iterable[PresenceChanged]:
        """The published presence of all users who are not offline, with their current rooms."""
        return self._published.values()

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: keep the rooms of users current."""
        if not self._published and not self._unknown_users:
            return
        for entry in entries:
            if isinstance(entry, StateChanged):
                is_own_join = len(entry.changes) > MAX_NEWCOMERS
                for user_id, membership, _ in entry.members():
                    change = self._published.get(user_id)
                    if change is not None:
                        self._follow(change, entry.room_nid, membership, is_shown=not is_own_join)
                    elif membership == "join":
                        self._apply_pending(user_id)

    def stop(self) -> None:
        """Stop all timeouts: the server is shutting down."""
        self._deadlines.stop()

    def _follow(
        self, change: PresenceChanged, room: int, membership: str, *, is_shown: bool
    ) -> None:
        """Update a user's rooms; publish their presence to a room that they join."""
        others = tuple(other for other in change.rooms if other != room)
        if membership != "join":
            change = replace(change, rooms=others)
        elif room not in change.rooms:
            if is_shown:
                change = replace(change, position=self._log.next_position(), rooms=(room,))
                self._log.append(change)
            change = replace(change, rooms=(*others, room))
        self._published[change.user_id] = change

    def _apply_pending(self, user_id: str) -> None:
        """Apply presence that was received before the user shared a room with a local user."""
        received_at, update = self._unknown_users.pop(user_id) or (0.0, None)
        if update is not None and self._clock.seconds() - received_at < NEGATIVE_CACHE_SECONDS:
            taking = Deferred.fromCoroutine(self.receive(user_id, *update))
            taking.addErrback(_log_failure)

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
        change = PresenceChanged(position, user_id, rooms, state, status_msg, max(active_ms, 0))
        if state == OFFLINE:
            self._published.pop(user_id, None)
            self._received_at.pop(user_id, None)
        else:
            self._published[user_id] = change
            self._published.move_to_end(user_id)
            if len(self._published) > MAX_USERS:
                oldest, _ = self._published.popitem(last=False)
                self._received_at.pop(oldest, None)
        return self._log.append(change)

    def _expire(self, user_id: str) -> None:
        if user_id in self._settling:
            self._settle(user_id)
        change, received_at = self._published.get(user_id), self._received_at.get(user_id)
        if change is None or received_at is None:
            if user_id not in self._settling:
                self._received_at.pop(user_id, None)
            return
        left = received_at + REMOTE_PRESENCE_TTL_SECONDS - self._clock.seconds()
        if left > 0:
            self._deadlines.set(user_id, self._clock.seconds() + left)
            return
        try:
            self._publish(user_id, change.rooms, OFFLINE, change.status_msg, change.last_active_ms)
        except Unavailable:
            self._deadlines.set(user_id, self._clock.seconds() + REMOTE_PRESENCE_TTL_SECONDS)


def _log_failure(failure: Failure) -> None:
    log.failure("could not publish remote presence", failure)
