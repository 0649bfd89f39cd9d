"""The presence of this server's users: who is there, kept in memory while they are.

Devices report that they connect and disconnect, users set their state, and the log shows what they
do. A change that readers should know of becomes a fact; a new time of the last activity alone does
not. With the fact the database learns of it, so that a restart does not make everybody blink: who
was there before is there still, and goes offline like anybody else if they do not come back.

Presence must never be in the way: where the database is away, devices sync without it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deadlines import Deadlines
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.config.settings import PresenceSettings
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import OFFLINE, State, Timeouts, UserPresence
from homeserver.protocol.errors import Forbidden, InvalidParam, Unavailable
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.changes import EventAppended, StateChanged
from homeserver.rooms.room.room_receipts import ReceiptChanged
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
    """A user who is there. `told` is what readers were told last, or are about to be told."""

    __slots__ = ("member", "presence", "rooms", "told", "user_id")

    def __init__(
        self,
        user_id: str,
        member: int,
        rooms: Iterable[int],
        presence: UserPresence,
        told: PresenceChanged,
    ) -> None:
        self.user_id = user_id
        self.member = member
        self.rooms = tuple(rooms)
        self.presence = presence
        self.told = told

    @property
    def last_active_ms(self) -> int:
        """When the user last did something, in milliseconds since the epoch."""
        return int(self.presence.last_active * 1000)


class PresenceTracker:
    """Who is there. `apply` is to be subscribed to the log, after the rooms of users."""

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
        self._deadlines = Deadlines(clock, self._time_is_up)
        self._users: dict[str, TrackedUser] = {}
        self._loads: SingleFlight[str, None] = SingleFlight()

    def __len__(self) -> int:
        return len(self._users)

    async def start(self) -> None:
        """Go on from what was known before the restart; to be called before anybody can connect."""
        if not self.enabled:
            return
        rows = await self._db.run(storage.not_offline)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        rooms = await self._db.run(joined_rooms_of_all, members)
        now = self._clock.seconds()
        for row in rows:
            user = self._keep(names[row.member], row.member, rooms.get(row.member, ()), row)
            user.presence.remember(user.told.state, now, self._timeouts)
            self._set_deadline(user)

    def stop(self) -> None:
        """Let nobody go idle or offline any more: the server is going down."""
        self._deadlines.stop()

    def now_ms(self) -> int:
        """The time by which people are there or not, in milliseconds since the epoch."""
        return int(self._clock.seconds() * 1000)

    def find(self, user_id: str) -> TrackedUser | None:
        """A user who is there, or was until a moment ago."""
        return self._users.get(user_id)

    def present(self) -> Iterable[TrackedUser]:
        """Everybody of whom readers were told that they are not offline."""
        return (user for user in self._users.values() if user.told.state != OFFLINE)

    async def set(
        self, caller: Requester, user_id: str, state: State, status_msg: str | None
    ) -> None:
        """Set the state of the caller's device, and the caller's status message or none.

        Raises `Forbidden` for another user, `InvalidParam` for too long a message, `Unavailable`.
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

    async def touch(self, user_id: str, device_id: str | None, asked: State | None) -> None:
        """A device begins to sync; `asked` is its `set_presence`, `None` where it sent none.

        Each call wants one of `sync_ended` with the same arguments. Returns when readers know.
        """
        if not self.enabled or asked == OFFLINE:
            return
        try:
            user = self._users.get(user_id) or await self._user(user_id)
            if user.presence.poll_began(device_id or "", asked, self._clock.seconds()):
                await self._publish(user)
        except Unavailable as error:
            log.warn("the presence of {user} waits: {error}", user=user_id, error=error)

    def sync_ended(self, user_id: str, device_id: str | None, asked: State | None) -> None:
        """A device has stopped to sync, if only until its next request."""
        user = self._users.get(user_id)
        if user is not None and asked != OFFLINE:
            now = self._clock.seconds()
            user.presence.poll_ended(device_id or "", now)
            if not self._deadlines.comes_before(user_id, now + self._timeouts.offline_after):
                self._set_deadline(user)

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: what users do shows that they are there."""
        if not self._users:
            return
        for fact in facts:
            if isinstance(fact, StateChanged):
                if isinstance(fact, EventAppended):
                    self._act(fact.stored.event.sender)
                for user_id, membership, _ in fact.members():
                    self._follow(user_id, fact.room_nid, membership)
            elif isinstance(fact, ReceiptChanged) or (
                isinstance(fact, TypingChanged) and fact.typing
            ):
                self._act(fact.user_id)

    def _act(self, user_id: str) -> None:
        user = self._users.get(user_id)
        if user is not None:
            user.presence.act(self._clock.seconds())
            self._tell_if_possible(user)

    def _follow(self, user_id: str, room: int, membership: str) -> None:
        """Keep a user's rooms true; who comes into a room is shown to those who are there."""
        user = self._users.get(user_id)
        if user is None:
            return
        others = tuple(other for other in user.rooms if other != room)
        if membership != "join":
            user.rooms = others
        elif room not in user.rooms:
            user.rooms = (*others, room)
            if user.told.state != OFFLINE:
                self._append(user, user.told.state, (room,))

    async def _user(self, user_id: str) -> TrackedUser:
        # Another who waited for the same may have let the user go already.
        while (user := self._users.get(user_id)) is None:
            await self._loads.join(user_id, partial(self._load, user_id))
        return user

    async def _load(self, user_id: str) -> None:
        member = await self._names.nid(user_id)
        row = await self._db.run(storage.find_presence, member)
        rooms = await self._user_rooms.joined(user_id)
        self._keep(user_id, member, rooms, row)

    def _keep(
        self, user_id: str, member: int, rooms: Iterable[int], row: storage.PresenceRow | None
    ) -> TrackedUser:
        told = seen_by(user_id, row)
        presence = UserPresence(told.last_active_ms / 1000, told.status_msg)
        user = self._users[user_id] = TrackedUser(user_id, member, rooms, presence, told)
        return user

    def _time_is_up(self, user_id: str) -> None:
        user = self._users.get(user_id)
        if user is not None:
            self._tell_if_possible(user)

    def _tell_if_possible(self, user: TrackedUser) -> None:
        with suppress(Unavailable):
            self._publish(user)

    def _publish(self, user: TrackedUser) -> Deferred[None]:
        """Tell readers of the user's presence if it is not what they know; fires when they do.

        Raises `Unavailable` while nothing can be written; it is made up for later.
        """
        state = user.presence.state(self._clock.seconds(), self._timeouts)
        self._set_deadline(user)
        done: Deferred[None] = Deferred()
        if (state, user.presence.status_msg) == (user.told.state, user.told.status_msg):
            done.callback(None)
        else:
            self._check_open(user)
            done = self._append(user, state, user.rooms)
        if not user.presence.has_devices:
            del self._users[user.user_id]
        return done

    def _check_open(self, user: TrackedUser) -> None:
        try:
            self._log.check_open()
        except Unavailable:
            self._deadlines.set(user.user_id, self._clock.seconds() + RETRY_SECONDS)
            raise

    def _append(self, user: TrackedUser, state: State, rooms: tuple[int, ...]) -> Deferred[None]:
        status_msg, last_active_ms = user.presence.status_msg, user.last_active_ms
        position = self._log.next_position()
        user.told = PresenceChanged(
            position, user.user_id, rooms, state, status_msg, last_active_ms
        )
        row = storage.UPSERT_PRESENCE.row(user.member, state, status_msg, last_active_ms, position)
        return self._log.append(user.told, [row])

    def _set_deadline(self, user: TrackedUser) -> None:
        at = user.presence.next_change(self._clock.seconds(), self._timeouts)
        if at is not None:
            self._deadlines.set(user.user_id, at)


def seen_by(user_id: str, row: storage.PresenceRow | None) -> PresenceChanged:
    """What readers were told of a user before this process began; offline if there is nothing."""
    if row is None:
        return PresenceChanged(0, user_id, (), OFFLINE, None, 0)
    state = cast("State", row.state)
    return PresenceChanged(row.position, user_id, (), state, row.status_msg, row.last_active_ms)
