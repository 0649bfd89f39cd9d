"""What a client is sent of profiles: of users of this server who share a room with the reader.

What changed since a token is sent of everybody who shares a room, the reader included; whole
profiles are sent of users who are new to the client. No other server says when the profile of one
of its users changes, so these are not sent: clients have their names and avatars in member events.
That a user shares no room any more is said of all users.

A value may be newer than the update that has it, which is sent again with the next one then.

Spec: MSC4262, MSC4429
"""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from homeserver.accounts.user_data.profile_changes import (
    FieldChange,
    ProfileChanges,
    ProfileFields,
)
from homeserver.accounts.user_data.profiles import LocalProfiles
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.room_sharers import RoomSharers
from homeserver.sync.user_change_queues import UserChangeQueues


class ProfileDelta(NamedTuple):
    """What a client is sent of a profile: values as JSON, and the names of removed fields."""

    updated: Mapping[str, bytes]
    removed: Collection[str]


class ProfileNews(msgspec.Struct):
    """What happened since a token: changed fields by user, and who begins and ends to share rooms.

    `positions` are (user id, position) of the changes.
    """

    changed: dict[str, set[str]] = msgspec.field(default_factory=dict)
    joined: Collection[str] = ()
    left: Collection[str] = ()
    positions: list[tuple[str, int]] = msgspec.field(default_factory=list)


class ProfileUpdates:
    """Finds what is new of profiles."""

    def __init__(
        self,
        shared: RoomSharers,
        changes: ProfileChanges,
        profiles: LocalProfiles,
        rooms: RoomRegistry,
        queues: UserChangeQueues,
        clock: Clock,
    ) -> None:
        self._shared = shared
        self._changes = changes
        self._profiles = profiles
        self._rooms = rooms
        self._queues = queues
        self._clock = clock

    def follow(self, user_id: str) -> None:
        """Have the user's waiting requests woken by changes of profiles from now on."""
        self._queues.follow_profiles(user_id)

    async def since(
        self,
        user_id: str,
        token: SyncToken,
        fields: ProfileFields,
        memberships: MemberRooms,
        candidates: Iterable[int],
    ) -> ProfileNews:
        """What happened since a token, for one user.

        `memberships` are the user's, and have at least the `candidates`: the rooms in which
        anything changed.
        """
        joined, left = await self._shared.changes(user_id, token, memberships, candidates)
        news = ProfileNews(joined=joined, left=left)
        for change in await self._changed(user_id, token, fields):
            if change.user_id not in left:
                news.changed.setdefault(change.user_id, set()).add(change.field)
                news.positions.append((change.user_id, change.position))
        return news

    async def _changed(
        self, user_id: str, token: SyncToken, fields: ProfileFields
    ) -> Collection[FieldChange]:
        if not self._changes.are_in_memory(token):
            own_rooms = await self._shared.joined_rooms(user_id)
            return await self._changes.stored(user_id, own_rooms, token, fields)
        changes = list(self._changes.recent(token, fields))
        others = {change.user_id for change in changes} - {user_id}
        if not others:
            return changes
        own_rooms = await self._shared.joined_rooms(user_id)
        shown = await self._shared.sharing(others, own_rooms) | {user_id}
        return [change for change in changes if change.user_id in shown]

    async def deltas(
        self,
        whole: AbstractSet[str],
        changed: Mapping[str, Collection[str]],
        fields: ProfileFields,
    ) -> dict[str, ProfileDelta]:
        """Whole profiles of some users, and what changed of others; an empty delta is left out."""
        if not (whole or changed):
            return {}
        wanted = whole | changed.keys()
        profiles = await self._profiles.of_many(wanted)
        deltas: dict[str, ProfileDelta] = {}
        time_slice = TimeSlice(self._clock)
        for user_id in wanted:
            if time_slice.is_over:
                await time_slice.next()
            profile, names = profiles.get(user_id, {}), changed.get(user_id, ())
            shown = fields if user_id in whole else names
            delta = ProfileDelta(
                {name: value for name, value in profile.items() if shown is None or name in shown},
                [name for name in names if name not in profile],
            )
            if delta.updated or delta.removed:
                deltas[user_id] = delta
        return deltas

    async def shared(self, user_id: str, others: Collection[str]) -> set[str]:
        """Those of some users with whom a user shares a room now."""
        if not others:
            return set()
        return await self._shared.sharing(others, await self._shared.joined_rooms(user_id))

    async def members(self, room_nids: Iterable[int]) -> set[str]:
        """The users of this server who are joined to one of the rooms."""
        found: set[str] = set()
        time_slice = TimeSlice(self._clock)
        for nid in room_nids:
            room = self._rooms.loaded(nid) or await self._rooms.by_number(nid)
            if room is not None:
                found |= self.members_of(room)
            if time_slice.is_over:
                await time_slice.next()
        return found

    def members_of(self, room: Room) -> set[str]:
        """The users of this server who are joined to a room."""
        return self.local(room.joined_members())

    def local(self, user_ids: Iterable[str]) -> set[str]:
        """Those of some users who are of this server."""
        is_local = self._rooms.local_server.is_local
        return {user_id for user_id in user_ids if is_local(user_id)}
