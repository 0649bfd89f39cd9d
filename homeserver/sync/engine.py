"""The sync engine: the update that a device has not seen since its token.

A response ends at the log's position when it was begun, and has nothing beyond. The user's change
queue says which rooms have changed; where it does not reach back to the token, the engine looks at
all of the user's rooms. The transports (long poll, WebSocket) differ only in how they wait.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec
from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.deferreds import fire_once
from homeserver.protocol import event_types
from homeserver.protocol.proposals.invite_filter import InviteAction
from homeserver.rooms.history.own_membership import was_joined
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.active_rooms import ActiveRooms
from homeserver.sync.sections.account_data_sections import AccountDataSections
from homeserver.sync.sections.device_list_updates import DeviceListUpdate
from homeserver.sync.sections.device_sections import DeviceSections
from homeserver.sync.sections.invitations import Invitations
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.profile_sections import ProfileSections
from homeserver.sync.sections.room_sections import RoomSections
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.shared_updates import SharedUpdates
from homeserver.sync.sources import Sources
from homeserver.sync.sync_points import SyncPoints
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_requests import SyncRequests
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import EncodedSections, Update
from homeserver.sync.user_change_queues import (
    PRESENCE,
    USER_DATA,
    UserChangeQueue,
    UserChangeQueues,
)

PREPARED_ROOMS = 100  # rooms that are read together
FEW_ROOMS = 5  # that have changed: with more, some may have to be read


class SyncEngine:
    """Makes the updates of all devices."""

    def __init__(
        self,
        sources: Sources,
        change_queues: UserChangeQueues,
        sections: RoomSections,
        invitations: Invitations,
        lazy_members: LazyMembers,
        devices: DeviceSections,
        profiles: ProfileSections,
        sticky: StickySections,
        shared: SharedUpdates,
        clock: Clock,
    ) -> None:
        self._shared = shared
        self._sticky = sticky
        self._user_rooms = sources.user_rooms
        self._devices = devices
        self._profiles = profiles
        self._log = sources.log
        self._rooms = sources.rooms
        self._sync_points = SyncPoints(change_queues, sources.user_rooms, sources.log)
        self._account_data = AccountDataSections(sources.account_data)
        self._user_data = sources.account_data
        self._presence = sources.presence
        self._active_rooms = ActiveRooms(sources.db, sources.rooms, sources.ephemeral)
        self._change_queues = change_queues
        self._sections = sections
        self._invitations = invitations
        self._lazy_members = lazy_members
        self._clock = clock
        self._stopping = False
        self._encoded_sections: EncodedSections = {}
        self.build_request = SyncRequests(sources.filters, sources.account_data).build

    def stop(self) -> None:
        """Answer all waiting requests with what there is: the server is shutting down."""
        self._stopping = True
        self._change_queues.wake_all()

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake()` called whenever something changes for the user; the result stops that."""
        queue = await self._change_queues.queue_of(user_id)
        queue.waiters.add(wake)
        return lambda: queue.waiters.discard(wake)

    async def wait(self, request: SyncRequest, since: SyncToken, timeout: float) -> Update:
        """The update above `since`, once it is not empty; an empty one after `timeout` seconds."""
        deadline = self._clock.seconds() + timeout
        queue = self._change_queues.loaded(request.user_id)
        if queue is None:
            queue = await self._change_queues.queue_of(request.user_id)
        while True:
            changed: Deferred[None] = Deferred()
            wake = fire_once(changed)
            queue.waiters.add(wake)
            try:
                left = deadline - self._clock.seconds()
                may_wait = left > 0 and not (request.full_state or self._stopping)
                if not (may_wait and self._has_no_news(request, since, queue)):
                    update = await self.update(request, since)
                    left = deadline - self._clock.seconds()
                    if not update.is_empty or left <= 0 or request.full_state or self._stopping:
                        return update
                alarm = self._clock.callLater(left, wake)
                try:
                    await changed
                finally:
                    if alarm.active():
                        alarm.cancel()
            finally:
                queue.waiters.discard(wake)

    def _has_no_news(self, request: SyncRequest, since: SyncToken, queue: UserChangeQueue) -> bool:
        """Whether it is known, without making an update, that it would be empty.

        So it is for nearly every client that polls again.
        """
        if request.profile_fields or since.sticky is not None:
            return False
        changed = queue.changed_since(since)
        return changed is not None and not changed and self._devices.has_no_news(request, since)

    async def update(self, request: SyncRequest, since: SyncToken | None) -> Update:
        """The update above a token, without waiting; an initial sync for `None`."""
        if since is None:
            self._lazy_members.start_over(request)
        elif (shared := self._shared.find(request, since)) is not None:
            return shared
        since_when = None if request.full_state else since
        sticky = self._sticky.waiting(since)
        now, changed, rooms = await self._sync_points.take(
            request.user_id, since_when, all_rooms=bool(sticky)
        )
        shown: set[str] | None = set() if request.profile_fields and request.lazy else None
        update = Update(SyncSpan(since, now), self._encoded_sections, shown=shown)
        await self._devices.add_own(update, request)
        if changed is not None and not changed and not sticky:
            if request.profile_fields:
                await self._profiles.add(update, request, rooms, ())
            return update
        if changed is None or USER_DATA in changed:
            by_room = await self._account_data.add(update, request)
        else:
            by_room = {}
        candidates = list(changed or ())  # `rooms` has no `USER_DATA` or presence
        if changed is None or by_room:
            candidates = list(await self._candidates(request, rooms, since, changed, by_room))
        if sticky:
            candidates = list(sticky & rooms.keys() | set(candidates))
        self._sticky.limit(update.span, candidates)
        if changed is None or sticky or max(changed) > PRESENCE:
            is_known = changed is not None and not sticky
            await self._add_rooms(update, request, rooms, candidates, by_room, is_known=is_known)
            await self._devices.add_lists(update, request, rooms, changed, candidates)
        if changed is None or min(changed, default=0) <= PRESENCE:
            await self._add_presence(update, request, changed)
        if request.profile_fields:
            await self._profiles.add(update, request, rooms, candidates)
        return update

    async def _add_rooms(
        self,
        update: Update,
        request: SyncRequest,
        rooms: MemberRooms,
        candidates: Sequence[int],
        by_room: dict[str, list[msgspec.Raw]],
        *,
        is_known: bool,
    ) -> None:
        """Add rooms, a few milliseconds at a time; `is_known`: it is known that these changed."""
        if is_known and len(candidates) == 1:  # a message to many members
            place = rooms.get(candidates[0])
            if place is not None:
                await self._add_room(update, request, candidates[0], place, by_room)
            return
        time_slice = TimeSlice(self._clock)
        for index, number in enumerate(candidates):
            if index % PREPARED_ROOMS == 0 and (not is_known or len(candidates) > FEW_ROOMS):
                some = candidates[index : index + PREPARED_ROOMS]
                await self._prepare(request, update.span, rooms, some)
            place = rooms.get(number)
            if place is not None:
                if time_slice.is_over:
                    await time_slice.next()
                await self._add_room(update, request, number, place, by_room)

    def received(self, request: SyncRequest, token: SyncToken) -> None:
        """The client has shown that it has received everything up to a token."""
        self._devices.received(request, token)

    async def device_list_update(self, user_id: str, since: SyncToken) -> DeviceListUpdate:
        """The users whose devices a client has to look up again since a token, up to now."""
        _, changed, _ = await self._sync_points.take(user_id, since)
        rooms = await self._user_rooms.of(user_id)
        if changed is None:
            candidates: Collection[int] = await self._active_rooms.since(rooms, since)
        else:
            candidates = changed
        return await self._devices.lists.since(
            user_id, since, rooms, candidates, lists_changed=True
        )

    async def _candidates(
        self,
        request: SyncRequest,
        rooms: MemberRooms,
        since: SyncToken | None,
        changed: set[int] | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> Iterable[int]:
        """Numeric ids of the rooms to look at."""
        if changed is not None:
            return changed.union(await self._numbers_of(by_room))
        if since is None or request.full_state:
            return list(rooms)
        active = await self._active_rooms.with_ephemeral(rooms, since)
        active.update(await self._numbers_of(by_room))
        active.update(self._sticky.changed_rooms(rooms, since))
        return active

    async def _prepare(
        self,
        request: SyncRequest,
        span: SyncSpan,
        places: MemberRooms,
        room_nids: Iterable[int],
    ) -> None:
        """Read together what is missing of the rooms that the user is in."""
        whole: list[int] = []
        known: list[int] = []
        for nid in room_nids:
            place = places.get(nid)
            if place is not None and place.membership == "join":
                since, _ = span.of_room(nid)
                is_whole = since is None or request.full_state or place.position > since
                (whole if is_whole else known).append(nid)
        if whole:
            await self._sections.preparation.prepare(request, whole)
        if known:
            await self._rooms.load_many(known)

    async def _numbers_of(self, room_ids: Iterable[str]) -> list[int]:
        rooms = [await self._rooms.find(room_id) for room_id in room_ids]
        return [room.room_nid for room in rooms if room is not None]

    async def _add_room(
        self,
        update: Update,
        request: SyncRequest,
        number: int,
        place: Membership,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        since, now = update.span.of_room(number)
        if place.position > now:
            return  # its shard does not fit into the token now
        is_new = since is None or place.position > since
        if place.membership == "join":
            room = self._rooms.loaded(number) or await self._rooms.by_number(number)
            if room is None or (room.partial is not None and not request.lazy):
                return  # without lazy loading it is shown once its full state is known
            if request.filter.room.matches_room(room.room_id):
                await self._add_joined(update, request, room, place, since, now, by_room)
        elif place.membership in ("invite", "knock"):
            if is_new:
                await self._add_invitation(update, request, number, place)
        elif not place.forgotten:
            await self._add_left(update, request, number, place, since, by_room)

    async def _add_invitation(
        self, update: Update, request: SyncRequest, number: int, place: Membership
    ) -> None:
        """Add a room that the user knocks at, or is invited to by somebody whom they allow."""
        sections = update.invited if place.membership == "invite" else update.knocked
        if place.membership == "invite":
            action = await self._user_data.invite_action(request.user_id, place.sender)
            # Whom the user ignores is as of the beginning of the request, as it is for events.
            if place.sender in request.ignored or action is not InviteAction.ALLOW:
                return
        room = await self._rooms.by_number(number)
        if room is not None and request.filter.room.matches_room(room.room_id):
            sections[room.room_id] = await self._invitations.section(room, place)
            update.span.has_room(number, place.position)

    async def _add_joined(
        self,
        update: Update,
        request: SyncRequest,
        room: Room,
        place: Membership,
        since: int | None,
        now: int,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        account_data = by_room.get(room.room_id, [])
        newly_joined = since is not None and (
            (since < room.full_state_at and not request.lazy)
            or (
                place.position > since
                and not await was_joined(self._rooms, room, request.user_id, place.event, since)
            )
        )
        known_since = None if newly_joined else since
        if newly_joined:
            account_data = await self._account_data.of_room(request, room.room_id)
        sticky = self._sticky.of_room(update.span, room.room_nid, is_new=known_since is None)
        section = await self._sections.joined(
            room,
            request,
            place,
            known_since,
            now,
            account_data,
            sticky,
            newly_joined=newly_joined,
            shown=update.shown,
        )
        if section is not None:
            update.joined[room.room_id] = section
            if update.span.even is None:
                is_whole = since is None or request.full_state
                sticky_upto = self._sticky.last_position(room.room_nid)
                newest = max(room.last_position, place.position, sticky_upto) if is_whole else now
                update.span.has_room(room.room_nid, newest)

    async def _add_left(
        self,
        update: Update,
        request: SyncRequest,
        number: int,
        place: Membership,
        since: int | None,
        by_room: dict[str, list[msgspec.Raw]],
    ) -> None:
        """Add a room that the user left since, or, if the filter includes left rooms, at any time.

        An initial sync has rooms that the user left only if the filter includes them.
        """
        whole = since is None or request.full_state
        left_since = since is not None and place.position > since
        if not left_since and not request.filter.room.include_leave:
            if since is None:
                update.span.has_room(number, place.position)  # or the next one would have it
            return
        room = await self._rooms.by_number(number)
        if room is None or not request.filter.room.matches_room(room.room_id):
            return
        account_data = by_room.get(room.room_id, [])
        if not (left_since or whole or account_data):
            return
        known_since = since
        if (
            left_since
            and since is not None
            and not await was_joined(self._rooms, room, request.user_id, place.event, since)
        ):
            known_since = None
        update.left[room.room_id] = await self._sections.left(
            room, request, place, known_since, account_data
        )
        update.span.has_room(number, place.position)

    async def _add_presence(
        self, update: Update, request: SyncRequest, changed: set[int] | None
    ) -> None:
        wanted = request.filter.presence
        if not wanted.is_default and not wanted.matches(event_types.PRESENCE, None):
            return
        span = update.span
        found = await self._presence.events_since(request.user_id, span.since, changed)
        update.presence = found.events
        span.has_users((change.user_id, change.position) for change in found.changes)
