"""The presence of local users, kept in memory while they are not offline.

Devices report that they connect and disconnect, users set their state, and the log shows their
activity. A change that other users should see becomes a log entry; a new time of the last activity
alone does not. The entry is stored, so that a restart does not make all users go offline and online
again: a user who was online stays so, and goes offline after the timeout if they do not reconnect.

Presence must never block a sync: while the database is unavailable, devices sync without it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deadlines import Deadlines
from homeserver.concurrency.deferreds import wait_for_completion
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.config.settings import PresenceSettings
from homeserver.presence.flapping import Flapping
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import OFFLINE, State, Timeouts, UserPresence
from homeserver.protocol.errors import Forbidden, InvalidParam, Unavailable
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.room.changes import EventAppended, StateChanged
from homeserver.rooms.room.room_receipts import ReceiptsChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.accounts import presence as storage
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_rooms_of_all
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log

MAX_STATUS_BYTES = 1024
RETRY_SECONDS = 5.0
log = Logger()


class TrackedUser:
    """A user who is not offline. `published` is the last change that was published, or appended.

    `settling` fires when a change that waits is published, since the user's presence flaps.
    """

    __slots__ = ("member", "presence", "published", "rooms", "settling", "user_id")

    def __init__(
        self,
        user_id: str,
        member: int,
        rooms: Iterable[int],
        presence: UserPresence,
        published: PresenceChanged,
    ) -> None:
        self.user_id = user_id
        self.member = member
        self.rooms = tuple(rooms)
        self.presence = presence
        self.published = published
        self.settling: Deferred[None] | None = None

    @property
    def last_active_ms(self) -> int:
        """The time of the user's last activity, in milliseconds since the epoch."""
        return int(self.presence.last_active * 1000)


class PresenceTracker:
    """Tracks local users. `apply` is to be subscribed to the log, after the rooms of users."""

    def __init__(
        self,
        settings: PresenceSettings,
        db: Database,
        log: Log,
        names: Names,
        user_rooms: UserRooms,
        clock: Clock,
    ) -> None:
        self.enabled = settings.enabled
        self._timeouts = Timeouts(settings.idle_after, settings.offline_after)
        self._db = db
        self._log = log
        self._names = names
        self._user_rooms = user_rooms
        self._clock = clock
        self._deadlines = Deadlines(clock, self._apply_timeout)
        self._users: dict[str, TrackedUser] = {}
        self._loads: SingleFlight[str, None] = SingleFlight()
        self._flapping = Flapping(clock)

    def __len__(self) -> int:
        return len(self._users)

    async def start(self) -> None:
        """Load the presence from before a restart; to be called before clients can connect."""
        if not self.enabled:
            return
        rows = await self._db.run(storage.not_offline)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        rooms = await self._db.run(joined_rooms_of_all, members)
        now = self._clock.seconds()
        for row in rows:
            user = self._track(names[row.member], row.member, rooms.get(row.member, ()), row)
            user.presence.restore(user.published.state, now, self._timeouts)
            self._set_deadline(user)

    def stop(self) -> None:
        """Stop all timeouts: the server is shutting down."""
        self._deadlines.stop()

    def now_ms(self) -> int:
        """The time of the clock that presence uses, in milliseconds since the epoch."""
        return int(self._clock.seconds() * 1000)

    def find(self, user_id: str) -> TrackedUser | None:
        """A user who is not offline, or went offline just now."""
        return self._users.get(user_id)

    def present(self) -> Iterable[TrackedUser]:
        """All users whose published state is not offline."""
        return (user for user in self._users.values() if user.published.state != OFFLINE)

    async def set(
        self, caller: Requester, user_id: str, state: State, status_msg: str | None
    ) -> None:
        """Set the state of the caller's device, and the caller's status message or none.

        Returns once it is published. Raises `Forbidden` for another user, `InvalidParam` for too
        long a message, `Unavailable`.
        """
        if user_id != caller.user_id:
            raise Forbidden("You can only set your own presence")
        if status_msg is not None and len(status_msg.encode()) > MAX_STATUS_BYTES:
            raise InvalidParam(f"status_msg must not exceed {MAX_STATUS_BYTES} bytes")
        if status_msg is not None and "\0" in status_msg:
            raise InvalidParam("status_msg may not hold NUL characters")
        if not self.enabled:
            return
        self._log.check_open()
        user = await self._user(user_id)
        now = self._clock.seconds()
        user.presence.set(caller.device_id or "", state, status_msg, now)
        await self._publish(user)

    async def sync_began(
        self, user_id: str, device_id: str | None, set_presence: State | None
    ) -> None:
        """A device begins to sync; `set_presence` is its parameter, `None` where it sent none.

        Each call needs one of `sync_ended` with the same arguments. Returns once it is published,
        unless the user's presence flaps.
        """
        if not self.enabled or set_presence == OFFLINE:
            return
        try:
            user = self._users.get(user_id) or await self._user(user_id)
            if user.presence.begin_poll(device_id or "", set_presence, self._clock.seconds()):
                published = self._publish(user)
                if user.settling is None:
                    await published
        except Unavailable as error:
            log.warn(
                "could not publish the presence of {user} yet: {error}", user=user_id, error=error
            )

    def sync_ended(self, user_id: str, device_id: str | None, set_presence: State | None) -> None:
        """A device has stopped syncing, if only until its next request."""
        user = self._users.get(user_id)
        if user is not None and set_presence != OFFLINE:
            now = self._clock.seconds()
            user.presence.end_poll(device_id or "", now)
            if not self._deadlines.comes_before(user_id, now + self._timeouts.offline_after):
                self._set_deadline(user)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: what users send counts as activity."""
        if not self._users:
            return
        for entry in entries:
            if isinstance(entry, StateChanged):
                if isinstance(entry, EventAppended) and not is_imported(entry.stored.event):
                    self._act(entry.stored.event.sender)
                for user_id, membership, _ in entry.members():
                    self._follow(user_id, entry.room_nid, membership)
            elif isinstance(entry, ReceiptsChanged):
                for receipt in entry.receipts:
                    self._act(receipt.user_id)
            elif isinstance(entry, TypingChanged) and entry.typing:
                self._act(entry.user_id)

    def _act(self, user_id: str) -> None:
        user = self._users.get(user_id)
        if user is not None:
            user.presence.act(self._clock.seconds())
            self._try_publish(user)

    def _follow(self, user_id: str, room: int, membership: str) -> None:
        """Update a user's rooms; publish their presence to a room that they join."""
        user = self._users.get(user_id)
        if user is None:
            return
        others = tuple(other for other in user.rooms if other != room)
        if membership != "join":
            user.rooms = others
        elif room not in user.rooms:
            user.rooms = (*others, room)
            if user.published.state != OFFLINE:
                self._append(user, user.published.state, user.published.status_msg, (room,))

    async def _user(self, user_id: str) -> TrackedUser:
        # Another who waited for the same may have let the user go already.
        while (user := self._users.get(user_id)) is None:
            await self._loads.join(user_id, partial(self._load, user_id))
        return user

    async def _load(self, user_id: str) -> None:
        member = await self._names.nid(user_id)
        row = await self._db.run(storage.find_presence, member)
        rooms = await self._user_rooms.joined(user_id)
        self._track(user_id, member, rooms, row)

    def _track(
        self, user_id: str, member: int, rooms: Iterable[int], row: storage.PresenceRow | None
    ) -> TrackedUser:
        published = stored_presence(user_id, row)
        presence = UserPresence(published.last_active_ms / 1000, published.status_msg)
        user = self._users[user_id] = TrackedUser(user_id, member, rooms, presence, published)
        return user

    def _apply_timeout(self, user_id: str) -> None:
        user = self._users.get(user_id)
        if user is not None:
            self._try_publish(user)

    def _try_publish(self, user: TrackedUser) -> None:
        with suppress(Unavailable):
            self._publish(user)

    def _publish(self, user: TrackedUser) -> Deferred[None]:
        """Publish the user's presence if it has changed; fires once it is published.

        Raises `Unavailable` while nothing can be written; it is published later.
        """
        if user.settling is not None:
            self._set_deadline(user)
            return wait_for_completion(user.settling)
        change = self._change_of(user)
        if change is not None:
            self._check_open(user)
            due = self._flapping.next(user.user_id)
            if due is not None:
                user.settling = due.addCallback(lambda _: self._settle(user))
                return wait_for_completion(user.settling)
        return self._publish_now(user, change)

    def _settle(self, user: TrackedUser) -> Deferred[None]:
        """Publish what the presence of a user is after it flapped."""
        user.settling = None
        change = self._change_of(user)
        try:
            if change is not None:
                self._check_open(user)
        except Unavailable:
            return succeed(None)  # it is published later
        return self._publish_now(user, change)

    def _change_of(self, user: TrackedUser) -> State | None:
        """The state of a user, if that or their status message differs from what is published."""
        state = user.presence.state(self._clock.seconds(), self._timeouts)
        self._set_deadline(user)
        known = user.published.state, user.published.status_msg
        return None if (state, user.presence.status_msg) == known else state

    def _publish_now(self, user: TrackedUser, change: State | None) -> Deferred[None]:
        done = succeed(None)
        if change is not None:
            done = self._append(user, change, user.presence.status_msg, user.rooms)
        if not user.presence.has_devices:
            del self._users[user.user_id]
        return done

    def _check_open(self, user: TrackedUser) -> None:
        try:
            self._log.check_open()
        except Unavailable:
            self._deadlines.set(user.user_id, self._clock.seconds() + RETRY_SECONDS)
            raise

    def _append(
        self, user: TrackedUser, state: State, status_msg: str | None, rooms: tuple[int, ...]
    ) -> Deferred[None]:
        last_active_ms = user.last_active_ms
        position = self._log.next_position()
        user.published = PresenceChanged(
            position, user.user_id, rooms, state, status_msg, last_active_ms
        )
        row = storage.UPSERT_PRESENCE.row(user.member, state, status_msg, last_active_ms, position)
        return self._log.append(user.published, [row])

    def _set_deadline(self, user: TrackedUser) -> None:
        at = user.presence.next_change(self._clock.seconds(), self._timeouts)
        if at is not None:
            self._deadlines.set(user.user_id, at)


def stored_presence(user_id: str, row: storage.PresenceRow | None) -> PresenceChanged:
    """The presence of a user as stored; offline if there is no row."""
    if row is None:
        return PresenceChanged(0, user_id, (), OFFLINE, None, 0)
    state = cast("State", row.state)
    return PresenceChanged(row.position, user_id, (), state, row.status_msg, row.last_active_ms)
