"""Change queues: for each active user, which rooms have changed, and which requests wait for that.

Each log entry becomes a short item (position, what) in the queue of each active user concerned, and
waiting requests are woken once a batch, however many entries it has. A queue is bounded: where it
does not reach back to the token of a request, the engine looks at all of the user's rooms instead.

Changes of profiles are in no queue, since few clients ask for them, and these look at the changes
of all users. They only wake the requests of users who have asked.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.accounts.user_data.profiles import ProfileChanged
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import (
    ClaimableKeysChanged,
    DeviceListChanged,
    ToDeviceMessagesSent,
    UserSignaturesChanged,
)
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.changes import EventsStored, OutOfRoomMembershipChanged, StateChanged
from homeserver.rooms.room.room_receipts import PRIVATE, ReceiptsChanged
from homeserver.rooms.room.user_rooms import MemberRooms, RoomForgotten, UserRooms
from homeserver.rooms.sticky.sticky_events import newly_sticking
from homeserver.streams.shards import shard_of, shard_of_user
from homeserver.streams.sync_tokens import SyncToken

# In place of a room's numeric id:
USER_DATA = 0  # account data
PRESENCE = -1  # presence of the first shard; lower for the others (`presence_in`)
DEVICE_LISTS = 1 << 40  # device lists of users of the first shard; higher for the others
DEVICE_DATA = DEVICE_LISTS - 1  # messages to the user's devices, and keys of these
SUBSCRIPTIONS = DEVICE_LISTS - 2  # the user's subscriptions to threads

MAX_QUEUED_CHANGES = 400  # of one user
WAKE_BATCH_SIZE = 100  # users at least, before yielding to the reactor
MAX_IMMEDIATE_AUDIENCE = 100  # users who are woken at once by a change of presence or a profile
MAX_IMMEDIATE_READERS = 20  # users who are woken at once by a receipt of another one
BATCH_SECONDS = 1.0  # after which a larger audience is, for all changes together
log = Logger()


class Published(Protocol):
    """The part of `Seen` that is used here."""

    @property
    def highest(self) -> int:
        """The highest position that is published."""


def presence_in(shard: int) -> int:
    """What stands for presence that was published with the facts of a shard."""
    return PRESENCE - shard


def device_lists_in(shard: int) -> int:
    """What stands for the device lists of the users of a shard."""
    return DEVICE_LISTS + shard


class UserChangeQueue:
    """The changes that concern one user, complete above `since`.

    They are in the order in which they were published, each with the highest position so far; with
    one owner of all shards that is its own.
    """

    __slots__ = ("entries", "highest", "rooms", "since", "user_id", "waiters")

    def __init__(self, user_id: str, since: int) -> None:
        self.user_id = user_id
        self.since = since
        self.highest = since
        self.entries: deque[tuple[int, int, int]] = deque()
        self.waiters: set[Callable[[], None]] = set()
        self.rooms: set[int] = set()

    def add(self, position: int, what: int) -> None:
        """Record a change: `what` is a room's numeric id, or one of the constants above."""
        entries = self.entries
        if position > self.highest:
            self.highest = position
        if entries and entries[-1][1] == what:
            # A token below the earlier position is below this one, too.
            entries[-1] = position, what, self.highest
            return
        entries.append((position, what, self.highest))
        if len(entries) > MAX_QUEUED_CHANGES:
            self.since = entries.popleft()[2]

    def changed_since(self, token: SyncToken) -> set[int] | None:
        """The changes above a token; `None` where the queue does not reach back that far."""
        base = token.base
        if base < self.since:
            return None
        changed = set()
        for at, what, highest in reversed(self.entries):
            if highest <= base:
                break
            if at > base and not (token.ahead and at <= token.at(self._shard(what))):
                changed.add(what)
        return changed

    def only_change_since(self, base: int) -> int | None:
        """The change above a position, if it is known that there is one and no other."""
        entries = self.entries
        if base < self.since or not entries or (len(entries) > 1 and entries[-2][2] > base):
            return None
        at, what, _ = entries[-1]
        return what if at > base else None

    def _shard(self, what: int) -> int:
        """The shard whose position a change has."""
        if what in (USER_DATA, DEVICE_DATA, SUBSCRIPTIONS):
            return shard_of_user(self.user_id)
        if what >= DEVICE_LISTS:
            return what - DEVICE_LISTS
        return shard_of(what) if what > USER_DATA else PRESENCE - what


class UserChangeQueues:
    """The queues of recently active users: at most `capacity`, and those with waiting requests."""

    def __init__(self, user_rooms: UserRooms, seen: Published, clock: Clock, capacity: int) -> None:
        self._seen = seen
        self._user_rooms = user_rooms
        self._clock = clock
        self._to_wake: dict[UserChangeQueue, None] = {}  # in the order of their changes
        self._postponed: set[UserChangeQueue] = set()
        self._of_profile_readers: set[UserChangeQueue] = set()
        self._queues: LruCache[str, UserChangeQueue] = LruCache(
            "user_changes",
            capacity,
            is_pinned=lambda queue: bool(queue.waiters),
            on_evict=lambda _, queue: self._unfollow_all(queue),
        )
        self._by_room: dict[int, set[UserChangeQueue]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def waiting(self) -> int:
        """The number of requests that wait now."""
        return sum(len(queue.waiters) for queue in self._queues.values())

    def loaded(self, user_id: str) -> UserChangeQueue | None:
        """The user's queue, if there is one."""
        return self._queues.get(user_id)

    async def queue_of(self, user_id: str) -> UserChangeQueue:
        """The user's queue, made now if there is none."""
        queue = self.loaded(user_id)
        if queue is not None:
            return queue
        joined = await self._user_rooms.joined(user_id)
        queue = self.loaded(user_id)
        if queue is None:
            # From here on it follows the log: what was published during the wait is not in it.
            queue = self._queues.put(user_id, UserChangeQueue(user_id, self._seen.highest))
            self._follow(queue, joined)
        return queue

    def follow_profiles(self, user_id: str) -> None:
        """Wake the user's waiting requests at changes of profiles, too, as long as it is active."""
        queue = self._queues.peek(user_id)
        if queue is not None:
            self._of_profile_readers.add(queue)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries, after rooms and memberships have applied them."""
        changed: set[UserChangeQueue] = set()
        newest_receipts = {
            entry.room: entry
            for entry in entries
            if isinstance(entry, ReceiptsChanged) and _is_public(entry)
        }
        for entry in entries:
            if isinstance(entry, StateChanged):
                self._room_changed(entry, changed)
            elif isinstance(entry, OutOfRoomMembershipChanged):
                self._add_for_user(entry.user_id, entry.position, entry.room, changed)
            elif isinstance(entry, TypingChanged) or (
                isinstance(entry, EventsStored) and newly_sticking(entry)
            ):
                self._add_for_room(entry.room, entry.position, changed)
            elif isinstance(entry, ReceiptsChanged):
                is_newest = entry is newest_receipts.get(entry.room)
                self._receipts_changed(entry, changed, is_newest=is_newest)
            elif isinstance(entry, PresenceChanged):
                self._add_for_presence(entry, changed)
            elif isinstance(entry, AccountDataChanged):
                self._add_for_user(entry.user_id, entry.position, USER_DATA, changed)
            elif isinstance(entry, ThreadSubscriptionChanged):
                self._add_for_user(entry.user_id, entry.position, SUBSCRIPTIONS, changed)
            elif isinstance(entry, RoomForgotten):
                self._add_for_user(entry.user_id, entry.position, entry.room, changed)
            elif isinstance(entry, ProfileChanged):
                self._profile_changed(entry.user_id)
            else:
                self._add_for_devices(entry, changed)
        self._wake_soon(changed)

    def wake_all(self) -> None:
        """Wake all waiting requests."""
        self._wake_soon(self._queues.values())

    def _wake_soon(self, changed: Iterable[UserChangeQueue]) -> None:
        """Wake the requests that wait on the queues, in the next reactor iteration.

        By then the log has acknowledged the writers and begun its next commit, so the requests are
        served while the database works.
        """
        is_due = bool(self._to_wake)
        self._to_wake.update((queue, None) for queue in changed if queue.waiters)
        if self._to_wake and not is_due:
            self._clock.callLater(0, self._wake)

    def _wake(self) -> None:
        """Wake the longest-waiting queues first, and enough of them to keep up with the writers."""
        time_slice = TimeSlice(self._clock)
        woken = 0
        while self._to_wake:
            queue = next(iter(self._to_wake))
            del self._to_wake[queue]
            for waiter in tuple(queue.waiters):
                try:
                    waiter()
                except Exception:
                    # The others are still woken, and this one by the next change.
                    log.failure("a waiting request could not be woken")
            woken += 1
            if woken >= WAKE_BATCH_SIZE and time_slice.is_over and self._to_wake:
                self._clock.callLater(0, self._wake)
                return

    def _postpone_wake(self, queues: Iterable[UserChangeQueue]) -> None:
        """Wake the requests that wait on the queues later, together with those of later changes."""
        is_due = bool(self._postponed)
        self._postponed.update(queue for queue in queues if queue.waiters)
        if self._postponed and not is_due:
            self._clock.callLater(BATCH_SECONDS, self._wake_postponed)

    def _wake_postponed(self) -> None:
        queues, self._postponed = self._postponed, set()
        self._wake_soon(queues)

    def _room_changed(self, entry: StateChanged, changed: set[UserChangeQueue]) -> None:
        for user_id, membership, _ in entry.members():
            # A user who joins or leaves is notified too.
            queue = self._queues.peek(user_id)
            if queue is not None:
                if membership == "join":
                    self._follow(queue, (entry.room_nid,))
                    # They now see the presence of the room's members, which did not change itself.
                    queue.add(entry.position, presence_in(shard_of(entry.room_nid)))
                else:
                    self._unfollow(queue, entry.room_nid)
                    queue.add(entry.position, entry.room_nid)
                    changed.add(queue)
        self._add_for_room(entry.room_nid, entry.position, changed)

    def _add_for_room(self, room: int, position: int, changed: set[UserChangeQueue]) -> None:
        for queue in self._by_room.get(room, ()):
            queue.add(position, room)
            changed.add(queue)

    def _receipts_changed(
        self, entry: ReceiptsChanged, changed: set[UserChangeQueue], *, is_newest: bool
    ) -> None:
        """Record receipts; those of a room in a batch once for all, with the newest of them."""
        for receipt in entry.receipts:
            if receipt.receipt_type == PRIVATE:
                self._add_for_user(receipt.user_id, entry.position, entry.room, changed)
                continue
            own = self._queues.peek(receipt.user_id)
            if own is not None and entry.room in own.rooms:
                changed.add(own)  # the user's other devices hide their notifications at once
        if not is_newest:
            return
        readers: set[UserChangeQueue] = set()
        self._add_for_room(entry.room, entry.position, readers)
        if len(readers) <= MAX_IMMEDIATE_READERS:
            changed |= readers
        else:
            # Each message in a large room is followed by a receipt of each reader: these wake
            # everybody together.
            self._postpone_wake(readers)

    def _add_for_user(
        self, user_id: str, position: int, what: int, changed: set[UserChangeQueue]
    ) -> None:
        queue = self._queues.peek(user_id)
        if queue is not None:
            queue.add(position, what)
            changed.add(queue)

    def _add_for_devices(self, entry: Any, changed: set[UserChangeQueue]) -> None:
        if isinstance(entry, DeviceListChanged):
            what = device_lists_in(shard_of_user(entry.user_id))
            changed |= self._add_for_sharing(entry.user_id, entry.rooms, entry.position, what)
        elif isinstance(entry, UserSignaturesChanged):
            what = device_lists_in(shard_of_user(entry.signer))
            self._add_for_user(entry.signer, entry.position, what, changed)
        elif isinstance(entry, ToDeviceMessagesSent | ClaimableKeysChanged):
            self._add_for_user(entry.user_id, entry.position, DEVICE_DATA, changed)

    def _add_for_sharing(
        self, user_id: str, rooms: Iterable[int], position: int, what: int
    ) -> set[UserChangeQueue]:
        """Record a change of a user for all who share a room with them, and for themselves."""
        queues: set[UserChangeQueue] = set()
        for room in rooms:
            queues |= self._by_room.get(room, set())
        own = self._queues.peek(user_id)
        if own is not None:
            queues.add(own)
        for queue in queues:
            queue.add(position, what)
        return queues

    def _add_for_presence(self, entry: PresenceChanged, changed: set[UserChangeQueue]) -> None:
        what = presence_in(shard_of_user(entry.user_id))
        seen = self._add_for_sharing(entry.user_id, entry.rooms, entry.position, what)
        changed |= self._immediate(entry.user_id, seen)

    def _immediate(self, user_id: str, seen: set[UserChangeQueue]) -> set[UserChangeQueue]:
        """The queues, of those that see a change of a user, to be woken now; others follow."""
        if len(seen) <= MAX_IMMEDIATE_AUDIENCE:
            return seen
        # Among thousands of users something changes all the time: batch these wake-ups.
        self._postpone_wake(seen)
        own = self._queues.peek(user_id)
        return set() if own is None else {own}

    def _profile_changed(self, user_id: str) -> None:
        """Wake those who share a room with a user and have asked for profiles."""
        if self._of_profile_readers:
            rooms = self._user_rooms.loaded(user_id)
            if rooms is None:
                Deferred.fromCoroutine(self._load_and_wake(user_id))
            else:
                self._wake_profile_readers(user_id, rooms)

    async def _load_and_wake(self, user_id: str) -> None:
        try:
            self._wake_profile_readers(user_id, await self._user_rooms.of(user_id))
        except Exception:
            log.failure("the rooms of {user_id} could not be loaded", user_id=user_id)
            self._postpone_wake(self._of_profile_readers)

    def _wake_profile_readers(self, user_id: str, rooms: MemberRooms) -> None:
        readers, seen = self._of_profile_readers, set[UserChangeQueue]()
        for room, place in rooms.items():
            if place.membership == "join":
                seen |= readers & self._by_room.get(room, set())
        own = self._queues.peek(user_id)
        if own in readers:
            seen.add(own)
        self._wake_soon(self._immediate(user_id, seen))

    def _follow(self, queue: UserChangeQueue, rooms: Collection[int]) -> None:
        queue.rooms.update(rooms)
        by_room = self._by_room
        for room in rooms:  # there may be thousands
            if room in by_room:
                by_room[room].add(queue)
            else:
                by_room[room] = {queue}

    def _unfollow(self, queue: UserChangeQueue, room: int) -> None:
        if room in queue.rooms:
            queue.rooms.discard(room)
            followers = self._by_room[room]
            followers.discard(queue)
            if not followers:
                del self._by_room[room]

    def _unfollow_all(self, queue: UserChangeQueue) -> None:
        self._of_profile_readers.discard(queue)
        for room in tuple(queue.rooms):
            self._unfollow(queue, room)


def _is_public(entry: ReceiptsChanged) -> bool:
    return any(receipt.receipt_type != PRIVATE for receipt in entry.receipts)
