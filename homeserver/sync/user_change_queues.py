"""Feeds: for each user who is there, which rooms have news, and who is waiting for it.

The log's facts are turned into short entries (position, what) once for each active user concerned,
and whoever waits is woken once a batch, however much it brought. A feed is bounded: where it does
not reach back to a reader's token, the reader looks at all rooms instead.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.logger import Logger

from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.changes import OutOfRoomMembershipChanged, StateChanged
from homeserver.rooms.room.room_receipts import PRIVATE, ReceiptChanged
from homeserver.rooms.room.user_rooms import RoomForgotten, UserRooms

USER_DATA = 0  # in place of a room number: account data, and all else that is the user's alone
PRESENCE = -1

MAX_QUEUED_CHANGES = 400  # that a feed keeps
WAKE_BATCH_SIZE = 100  # users at least, before the reactor gets to do something else
MAX_IMMEDIATE_AUDIENCE = 100  # users who are told of a change of presence at once
PRESENCE_SECONDS = 1.0  # after which more than these are, of all changes together
log = Logger()


class Positioned(Protocol):
    """What is used of the log."""

    @property
    def position(self) -> int:
        """Up to where everything is published."""


class UserChangeQueue:
    """News of one user, complete above `since`."""

    __slots__ = ("entries", "rooms", "since", "user_id", "waiters")

    def __init__(self, user_id: str, since: int) -> None:
        self.user_id = user_id
        self.since = since
        self.entries: deque[tuple[int, int]] = deque()
        self.waiters: set[Callable[[], None]] = set()
        self.rooms: set[int] = set()

    def add(self, position: int, what: int) -> None:
        """Note that something happened: a room's number, `USER_DATA` or `PRESENCE`."""
        entries = self.entries
        entries.append((position, what))
        if len(entries) > MAX_QUEUED_CHANGES:
            self.since = entries.popleft()[0]

    def changed_since(self, position: int) -> set[int] | None:
        """What has news above a position; `None` where the feed does not reach back that far."""
        if position < self.since:
            return None
        changed = set()
        for at, what in reversed(self.entries):
            if at <= position:
                break
            changed.add(what)
        return changed


class UserChangeQueues:
    """The feeds of all users who were seen lately, at most `capacity` beside those that wait."""

    def __init__(self, user_rooms: UserRooms, log: Positioned, clock: Clock, capacity: int) -> None:
        self._log = log
        self._user_rooms = user_rooms
        self._clock = clock
        self._to_wake: dict[UserChangeQueue, None] = {}  # in the order in which they were touched
        self._to_wake_later: set[UserChangeQueue] = set()
        self._feeds: LruCache[str, UserChangeQueue] = LruCache(
            "user_changes",
            capacity,
            is_pinned=lambda feed: bool(feed.waiters),
            on_evict=lambda _, feed: self._unfollow_all(feed),
        )
        self._by_room: dict[int, set[UserChangeQueue]] = {}

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def waiting(self) -> int:
        """How many readers wait at this moment."""
        return sum(len(feed.waiters) for feed in self._feeds.values())

    def loaded(self, user_id: str) -> UserChangeQueue | None:
        """The user's feed, if there is one."""
        return self._feeds.get(user_id)

    async def queue_of(self, user_id: str) -> UserChangeQueue:
        """The user's feed, made now if need be."""
        feed = self.loaded(user_id)
        if feed is not None:
            return feed
        joined = await self._user_rooms.joined(user_id)
        feed = self.loaded(user_id)
        if feed is None:
            # From here on it follows the log: what was published during the wait is not in it.
            feed = self._feeds.put(user_id, UserChangeQueue(user_id, self._log.position))
            for number in joined:
                self._follow(feed, number)
        return feed

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log, after rooms and memberships have been brought up to date."""
        touched: set[UserChangeQueue] = set()
        for fact in facts:
            if isinstance(fact, StateChanged):
                self._room_changed(fact, touched)
            elif isinstance(fact, OutOfRoomMembershipChanged):
                self._touch_user(fact.user_id, fact.position, fact.room, touched)
            elif isinstance(fact, TypingChanged):
                self._touch_room(fact.room, fact.position, touched)
            elif isinstance(fact, ReceiptChanged):
                if fact.receipt_type == PRIVATE:
                    self._touch_user(fact.user_id, fact.position, fact.room, touched)
                else:
                    self._touch_room(fact.room, fact.position, touched)
            elif isinstance(fact, PresenceChanged):
                self._touch_presence(fact, touched)
            elif isinstance(fact, AccountDataChanged | RoomForgotten):
                self._touch_user(fact.user_id, fact.position, USER_DATA, touched)
        self._wake_soon(touched)

    def wake_all(self) -> None:
        """Call everybody who waits."""
        self._wake_soon(self._feeds.values())

    def _wake_soon(self, touched: Iterable[UserChangeQueue]) -> None:
        """Call those who wait on the feeds in the next turn of the reactor.

        By then the log has answered the writers and begun its next commit, so that readers are
        served while the database works.
        """
        is_due = bool(self._to_wake)
        self._to_wake.update((feed, None) for feed in touched if feed.waiters)
        if self._to_wake and not is_due:
            self._clock.callLater(0, self._wake)

    def _wake(self) -> None:
        """Those who wait longest first; enough of them that nobody falls behind the writers."""
        turn = TimeSlice(self._clock)
        woken = 0
        while self._to_wake:
            feed = next(iter(self._to_wake))
            del self._to_wake[feed]
            for waiter in tuple(feed.waiters):
                try:
                    waiter()
                except Exception:
                    # The others are woken all the same, and this one by the next news.
                    log.failure("somebody who waits for news could not be woken")
            woken += 1
            if woken >= WAKE_BATCH_SIZE and turn.is_over and self._to_wake:
                self._clock.callLater(0, self._wake)
                return

    def _wake_later(self, feeds: Iterable[UserChangeQueue]) -> None:
        """Call those who wait on the feeds after a moment, in which more may happen to tell."""
        is_due = bool(self._to_wake_later)
        self._to_wake_later.update(feed for feed in feeds if feed.waiters)
        if self._to_wake_later and not is_due:
            self._clock.callLater(PRESENCE_SECONDS, self._end_of_moment)

    def _end_of_moment(self) -> None:
        feeds, self._to_wake_later = self._to_wake_later, set()
        self._wake_soon(feeds)

    def _room_changed(self, fact: StateChanged, touched: set[UserChangeQueue]) -> None:
        for user_id, membership, _ in fact.members():
            # Whoever comes or goes hears of it too.
            feed = self._feeds.peek(user_id)
            if feed is not None:
                if membership == "join":
                    self._follow(feed, fact.room_nid)
                    # The presence of those whom they now share a room with is no news by itself.
                    feed.add(fact.position, PRESENCE)
                else:
                    self._unfollow(feed, fact.room_nid)
                    feed.add(fact.position, fact.room_nid)
                    touched.add(feed)
        self._touch_room(fact.room_nid, fact.position, touched)

    def _touch_room(self, room: int, position: int, touched: set[UserChangeQueue]) -> None:
        for feed in self._by_room.get(room, ()):
            feed.add(position, room)
            touched.add(feed)

    def _touch_user(
        self, user_id: str, position: int, what: int, touched: set[UserChangeQueue]
    ) -> None:
        feed = self._feeds.peek(user_id)
        if feed is not None:
            feed.add(position, what)
            touched.add(feed)

    def _touch_presence(self, fact: PresenceChanged, touched: set[UserChangeQueue]) -> None:
        seen: set[UserChangeQueue] = set()
        for room in fact.rooms:
            seen |= self._by_room.get(room, set())
        own = self._feeds.peek(fact.user_id)
        if own is not None:
            seen.add(own)
        for feed in seen:
            feed.add(fact.position, PRESENCE)
        if len(seen) <= MAX_IMMEDIATE_AUDIENCE:
            touched |= seen
            return
        # Among thousands somebody comes or goes all the time: that need not be told at once.
        if own is not None:
            touched.add(own)
        self._wake_later(seen)

    def _follow(self, feed: UserChangeQueue, room: int) -> None:
        feed.rooms.add(room)
        self._by_room.setdefault(room, set()).add(feed)

    def _unfollow(self, feed: UserChangeQueue, room: int) -> None:
        if room in feed.rooms:
            feed.rooms.discard(room)
            followers = self._by_room[room]
            followers.discard(feed)
            if not followers:
                del self._by_room[room]

    def _unfollow_all(self, feed: UserChangeQueue) -> None:
        for room in tuple(feed.rooms):
            self._unfollow(feed, room)
