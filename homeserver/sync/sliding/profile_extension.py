"""The extension for profiles: whole ones of the members of rooms, and all changes after them.

The profiles of a room's members are sent when the room is first sent with the extension, those of
members who join with their join. With lazy loading they are sent of those whose events are. Which
users a connection has is noted with its state, as long as they are not too many: it is not stored,
and after a restart profiles of lazily loaded members are sent once more.

Spec: MSC4262
"""

from collections.abc import Iterable
from itertools import islice

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.sliding_sync.request import ProfilesConfig
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.history.member_changes import MembershipHistory
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.active_rooms import ActiveRooms
from homeserver.sync.sections.profile_updates import ProfileDelta, ProfileNews, ProfileUpdates
from homeserver.sync.sliding.connection import NEVER, ScopedRoom
from homeserver.sync.sliding.response_draft import ResponseDraft
from homeserver.sync.sliding.room_reading import RoomReading
from homeserver.sync.update import encode, section_json


class ProfileExtension:
    """Adds profiles to responses."""

    def __init__(
        self,
        updates: ProfileUpdates,
        history: MembershipHistory,
        rooms: RoomRegistry,
        active_rooms: ActiveRooms,
        clock: Clock,
    ) -> None:
        self._updates = updates
        self._history = history
        self._rooms = rooms
        self._active_rooms = active_rooms
        self._clock = clock

    async def add_room(
        self, draft: ResponseDraft, reading: RoomReading, scoped: ScopedRoom
    ) -> None:
        """Note whose whole profiles a room needs that the user is in."""
        room = reading.room
        if not scoped.all_profiles:
            draft.profiles |= self._joined(room, reading.shown or ())
            return
        since = None
        if reading.since is not None:
            since = draft.state.since(room.room_nid, reading.sent.profiles)
        if since is None or since < room.full_state_at:
            draft.profiles |= self._updates.members_of(room)
        elif since < room.members_changed_at:
            changes = await self._history.since(room, since)
            # The client dropped those of users who were away, and of all while the reader was.
            joined = changes.joined | changes.renewed
            if draft.reader.user_id in joined:
                draft.profiles |= self._updates.members_of(room)
            else:
                draft.profiles |= self._joined(room, joined)

    async def add(self, draft: ResponseDraft, config: ProfilesConfig) -> None:
        """Add what is new of profiles, after all rooms were added."""
        state, user_id = draft.state, draft.reader.user_id
        self._updates.follow(user_id)
        news, sent = ProfileNews(), state.profiles
        if sent is not None:
            candidates = await self._candidates(draft, sent.token)
            news = await self._updates.since(
                user_id, sent.token, config.fields, draft.places, candidates
            )
        if sent is not None and sent.has(config.fields):
            whole = draft.profiles - state.profiled
        else:
            whole = {user_id, *draft.profiles}
            if state.token is not None:
                whole |= await self._updates.shared(user_id, state.profiled)
                whole |= await self._of_known_rooms(draft)
        whole = whole.difference(news.left)
        deltas = await self._updates.deltas(whole, news.changed, config.fields)
        users = [b"%s:%s" % (encode(each), _user(delta)) for each, delta in deltas.items()]
        users += [b"%s:null" % encode(each) for each in news.left]
        if users:
            draft.extensions.results.profiles = b'{"users":{%s}}' % b",".join(users)
            draft.extensions.results.profiles_name = config.name
            draft.extensions.is_new = True
        draft.span.has_users(news.positions)
        draft.profiled = dict.fromkeys(whole, True) | dict.fromkeys(news.left, False)

    async def _candidates(self, draft: ResponseDraft, token: SyncToken) -> Iterable[int]:
        """The rooms whose members may have changed since a token."""
        if draft.changed is None or token != draft.state.token:
            return await self._active_rooms.since(draft.places, token)
        return draft.changed

    async def _of_known_rooms(self, draft: ResponseDraft) -> set[str]:
        """The users of the rooms in scope, for a client that wants other fields than before.

        With lazy loading they are those whose events the client has. Rooms that are out of scope
        begin again when they come back.
        """
        found: set[str] = set()
        time_slice = TimeSlice(self._clock)
        for nid, scoped in draft.scope.rooms.items():
            if time_slice.is_over:
                await time_slice.next()
            place = draft.places.get(nid)
            if scoped.profiles and place is not None and place.membership == "join":
                room = self._rooms.loaded(nid) or await self._rooms.by_number(nid)
                if room is not None and scoped.all_profiles:
                    found |= self._updates.members_of(room)
                elif room is not None:
                    newest = islice(reversed(room.timeline), scoped.config.timeline_limit)
                    users = {stored.event.sender for stored in newest}
                    users.update(await heroes(self._rooms, room, draft.reader.user_id))
                    found |= self._joined(room, users)
        for nid, known in draft.state.rooms.items():
            in_scope = draft.scope.rooms.get(nid)
            if known.profiles != NEVER and (in_scope is None or not in_scope.all_profiles):
                draft.sent[nid] = draft.sent.get(nid, known)._replace(profiles=NEVER)
        return found

    def _joined(self, room: Room, user_ids: Iterable[str]) -> set[str]:
        """Those of some users who are of this server and joined to a room."""
        return self._updates.local(
            user_id for user_id in user_ids if room.membership(user_id) == "join"
        )


def _user(delta: ProfileDelta) -> bytes:
    parts: dict[str, bytes] = {}
    if delta.updated:
        fields = (b"%s:%s" % (encode(name), value) for name, value in delta.updated.items())
        parts["updated"] = b"{%s}" % b",".join(fields)
    if delta.removed:
        parts["removed"] = encode(delta.removed)
    return section_json(parts)
