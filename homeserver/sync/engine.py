"""The sync engine: what has this device not seen since this token.

An answer ends at the log's position at the time when it was begun, and holds nothing beyond. Which
rooms have news is read from the user's feed; where that does not reach back to the token, all the
user's rooms are looked at. The transports (long poll, WebSocket) differ only in how they wait.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.filters import Filters
from homeserver.accounts.user_data.invite_permission import is_blocking
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol import event_types
from homeserver.protocol.event_types import INVITE_PERMISSION_CONFIG
from homeserver.protocol.filters import Filter
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import rooms_with_events_after
from homeserver.storage.rooms.partial_rooms import rooms_with_full_state_after
from homeserver.streams.log import Log
from homeserver.sync.invitations import Invitations
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.room_sections import EphemeralEvents, RoomSections
from homeserver.sync.sync_points import SyncPoints
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update, typed_event
from homeserver.sync.user_change_queues import PRESENCE, USER_DATA, UserChangeQueues

PREFETCH_ROOMS = 16  # rooms that are loaded together


class PresenceSource(Protocol):
    """Where presence comes from."""

    async def events_since(
        self, user_id: str, since: int | None, changed: Collection[int] | None = None
    ) -> Sequence[msgspec.Raw]:
        """Presence events of those who share a room with the user, changed above `since`.

        `changed` are the numbers of the rooms in which anything did, where that is known.
        """


@dataclass(frozen=True, slots=True)
class Sources:
    """What the engine reads."""

    db: Database
    log: Log
    rooms: RoomRegistry
    user_rooms: UserRooms
    account_data: AccountData
    filters: Filters
    presence: PresenceSource
    ephemeral: Sequence[EphemeralEvents]


class SyncEngine:
    """Answers every device."""

    def __init__(
        self,
        sources: Sources,
        feeds: UserChangeQueues,
        sections: RoomSections,
        invitations: Invitations,
        lazy_members: LazyMembers,
        clock: Clock,
    ) -> None:
        self._db = sources.db
        self._log = sources.log
        self._rooms = sources.rooms
        self._moments = SyncPoints(feeds, sources.user_rooms, sources.log)
        self._account_data = sources.account_data
        self._filters = sources.filters
        self._presence = sources.presence
        self._ephemeral = sources.ephemeral
        self._change_queues = feeds
        self._sections = sections
        self._invitations = invitations
        self._lazy_members = lazy_members
        self._clock = clock
        self._stopping = False
        self._encoded_sections: dict[tuple[int, str, bytes], bytes] = {}

    def stop(self) -> None:
        """Answer all who wait, with what there is: the server is going down."""
        self._stopping = True
        self._change_queues.wake_all()

    async def reader(
        self,
        caller: Requester,
        *,
        filter_text: str | None = None,
        full_state: bool = False,
        state_after: str | None = None,
    ) -> SyncRequest:
        """The reader for a request; `filter_text` is a filter's id, or the filter as JSON.

        The rest is as in `SyncRequest`.
        """
        wanted = Filter()
        if filter_text:
            wanted = await self._filters.find(caller.user_id, filter_text)
        ignored = self._account_data.find_ignored_users(caller.user_id)
        if ignored is None:
            ignored = await self._account_data.ignored_users(caller.user_id)
        return SyncRequest(caller, wanted, full_state, state_after, ignored)

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake()` called whenever the user has news; the result stops that."""
        feed = await self._change_queues.queue_of(user_id)
        feed.waiters.add(wake)
        return lambda: feed.waiters.discard(wake)

    async def wait(self, reader: SyncRequest, since: int, timeout: float) -> Update:
        """What is new, as soon as there is something; an empty update after `timeout` seconds."""
        deadline = self._clock.seconds() + timeout
        feed = await self._change_queues.queue_of(reader.user_id)
        while True:
            news: Deferred[None] = Deferred()
            wake = _fire_once(news)
            feed.waiters.add(wake)
            try:
                update = await self.update(reader, since)
                left = deadline - self._clock.seconds()
                if not update.is_empty or left <= 0 or reader.full_state or self._stopping:
                    return update
                alarm = self._clock.callLater(left, wake)
                try:
                    await news
                finally:
                    if alarm.active():
                        alarm.cancel()
            finally:
                feed.waiters.discard(wake)

    async def update(self, reader: SyncRequest, since: int | None) -> Update:
        """What is new above a token's position, at once; everything for `None`."""
        if since is None:
            self._lazy_members.start_over(reader)
        since_when = None if reader.full_state else since
        now, changed, rooms = await self._moments.take(reader.user_id, since_when)
        update = Update(now, self._encoded_sections)
        if changed is not None and not changed:
            return update
        if changed is None or USER_DATA in changed:
            by_room = await self._add_account_data(update, reader, since)
        else:
            by_room = {}
        candidates = list(changed or ())  # what is no room is not among the user's rooms
        if changed is None or by_room:
            candidates = list(await self._candidates(reader, rooms, since, changed, by_room))
        turn = TimeSlice(self._clock)
        for index, number in enumerate(candidates):
            if changed is None and index % PREFETCH_ROOMS == 0:
                await self._load_ahead(rooms, candidates[index : index + PREFETCH_ROOMS])
            place = rooms.get(number)
            if place is not None:
                if turn.is_over:
                    await turn.next()
                await self._add_room(update, reader, number, place, since, by_room)
        if changed is None or PRESENCE in changed:
            await self._add_presence(update, reader, since, changed)
        return update

    async def _candidates(
        self,
        reader: SyncRequest,
        rooms: MemberRooms,
        since: int | None,
        changed: set[int] | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> Iterable[int]:
        """Numbers of the rooms to look at."""
        if changed is not None:
            return changed.union(await self._numbers_of(by_room))
        if since is None or reader.full_state:
            return list(rooms)
        # The feed does not reach back. Rooms in memory are quick to ask; of the others, only those
        # are worth loading that have something new.
        silent = [number for number in rooms if self._rooms.loaded(number) is None]
        active = set(rooms).difference(silent)
        if silent:
            active.update(await self._db.run(rooms_with_events_after, silent, since))
            active.update(await self._db.run(rooms_with_full_state_after, silent, since))
            for source in self._ephemeral:
                active.update(await source.changed_rooms(silent, since))
        active.update(await self._numbers_of(by_room))
        return active

    async def _load_ahead(self, rooms: MemberRooms, numbers: Sequence[int]) -> None:
        """Load the rooms that are not in memory, all at once.

        One after the other, each would wait for the database several times. What fails here is
        tried again, and fails, where the room is needed.
        """
        missing = [
            number
            for number in numbers
            if self._rooms.loaded(number) is None
            and (place := rooms.get(number)) is not None
            and place.membership == "join"
        ]
        if len(missing) > 1:
            loading = [Deferred.fromCoroutine(self._rooms.by_number(number)) for number in missing]
            await DeferredList(loading, consumeErrors=True)

    async def _numbers_of(self, room_ids: Iterable[str]) -> list[int]:
        rooms = [await self._rooms.find(room_id) for room_id in room_ids]
        return [room.room_nid for room in rooms if room is not None]

    async def _add_room(
        self,
        update: Update,
        reader: SyncRequest,
        number: int,
        place: Membership,
        since: int | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        is_new = since is None or place.position > since
        if place.membership == "join":
            room = self._rooms.loaded(number) or await self._rooms.by_number(number)
            if room is None or (room.partial is not None and not reader.lazy):
                return  # it is shown with all its members, once they are known
            if reader.filter.room.matches_room(room.room_id):
                await self._add_joined(update, reader, room, place, since, by_room)
        elif place.membership in ("invite", "knock"):
            if is_new:
                await self._add_invitation(update, reader, number, place)
        elif not place.forgotten:
            await self._add_left(update, reader, number, place, since, by_room)

    async def _add_invitation(
        self, update: Update, reader: SyncRequest, number: int, place: Membership
    ) -> None:
        """A room that the user is invited to, unless they want no such invites, or knocks at."""
        sections = update.invited if place.membership == "invite" else update.knocked
        if place.membership == "invite":
            permission = await self._account_data.content(reader.user_id, INVITE_PERMISSION_CONFIG)
            blocked = permission is not None and is_blocking(permission)
            if blocked or place.sender in reader.ignored:
                return
        room = await self._rooms.by_number(number)
        if room is not None and reader.filter.room.matches_room(room.room_id):
            sections[room.room_id] = await self._invitations.section(room, place)

    async def _add_joined(
        self,
        update: Update,
        reader: SyncRequest,
        room: Room,
        place: Membership,
        since: int | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        account_data = by_room.get(room.room_id, [])
        newly_joined = since is not None and (
            (since < room.full_state_at and not reader.lazy)
            or (
                place.position > since
                and not await self._was_joined(room, reader.user_id, place.event, since)
            )
        )
        known_since = None if newly_joined else since
        if newly_joined:
            account_data = await self._room_account_data(reader, room.room_id)
        section = await self._sections.joined(
            room,
            reader,
            place,
            known_since,
            update.position,
            account_data,
            newly_joined=newly_joined,
        )
        if section is not None:
            update.joined[room.room_id] = section

    async def _add_left(
        self,
        update: Update,
        reader: SyncRequest,
        number: int,
        place: Membership,
        since: int | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        """Rooms that were left since, and for one who wants to know, all that were ever left.

        A room left while the reader looked away is told even in a first answer only if asked for.
        """
        whole = since is None or reader.full_state
        is_news = since is not None and place.position > since
        if not is_news and not reader.filter.room.include_leave:
            return
        room = await self._rooms.by_number(number)
        if room is None or not reader.filter.room.matches_room(room.room_id):
            return
        account_data = by_room.get(room.room_id, [])
        if not (is_news or whole or account_data):
            return
        known_since = since
        if (
            is_news
            and since is not None
            and not await self._was_joined(room, reader.user_id, place.event, since)
        ):
            known_since = None
        update.left[room.room_id] = await self._sections.left(
            room, reader, place, known_since, account_data
        )

    async def _was_joined(self, room: Room, user_id: str, event: int, since: int) -> bool:
        """Whether a user was joined at `since`, by their member events from `event` backwards.

        Where the graph forked meanwhile, that event may follow others than those of its time, and
        only the state of that time tells.
        """
        if since < room.forked_at:
            return await self._rooms.was_joined(room, user_id, since)
        number: int | None = event
        while number is not None:
            stored = (await self._rooms.stores.events.load(room.version, [number]))[number]
            if (stored.position or 0) <= since:
                return stored.event.content.get("membership") == "join"
            number = stored.replaces
        return False

    async def _add_account_data(
        self, update: Update, reader: SyncRequest, since: int | None
    ) -> dict[str, list[msgspec.Raw]]:
        """Add the account's own data; the result is that of rooms, by room id."""
        position = since or 0
        by_room: dict[str, list[msgspec.Raw]] = {}
        if not self._account_data.may_have_changed(reader.user_id, position):
            return by_room
        own: list[msgspec.Raw] = []
        wanted, in_rooms = reader.filter.account_data, reader.filter.room.account_data
        for room_id, event_type, content in await self._account_data.changed_since(
            reader.user_id, position
        ):
            event = typed_event(event_type, content)
            if room_id is None:
                if wanted.matches(event_type, None):
                    own.append(event)
            elif in_rooms.matches_room(room_id) and in_rooms.matches(event_type, None, {}):
                by_room.setdefault(room_id, []).append(event)
        update.account_data = own
        return by_room

    async def _room_account_data(self, reader: SyncRequest, room_id: str) -> list[msgspec.Raw]:
        contents = await self._account_data.of_room(reader.user_id, room_id)
        wanted = reader.filter.room.account_data
        if not wanted.matches_room(room_id):
            return []
        return [
            typed_event(event_type, content)
            for event_type, content in contents.items()
            if wanted.matches(event_type, None, {})
        ]

    async def _add_presence(
        self, update: Update, reader: SyncRequest, since: int | None, changed: set[int] | None
    ) -> None:
        wanted = reader.filter.presence
        if not wanted.is_default and not wanted.matches(event_types.PRESENCE, None):
            return
        update.presence = await self._presence.events_since(reader.user_id, since, changed)


def _fire_once(news: Deferred[None]) -> Callable[[], None]:
    def wake() -> None:
        if not news.called:
            news.callback(None)

    return wake
