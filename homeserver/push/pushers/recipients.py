"""Recipients: the members of a room who have pushers, in groups that are decided about together.

Members with equal push rules and ignored users form a group, so that an event costs one evaluation
for all of them, as most users have the predefined rules.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import ref

import msgspec

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.accounts.user_data.account_data import AccountDataChanged, AccountDataErased
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import CHECK_EVERY_ITEMS, TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_types import IGNORED_USER_LIST, PUSH_RULES
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.members import Member, Members
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.pusher import Pusher, PushersChanged
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms

UNLOADED = ""  # in the place of a user who has changed
MAX_CACHED = 100_000  # recipients of all rooms together


class Recipient(msgspec.Struct, frozen=True):
    """A member with the pushers that are enabled."""

    member: Member
    pushers: Sequence[Pusher]


class RecipientGroup(msgspec.Struct, frozen=True):
    """Members with the same rules, who ignore the same users; `pushers` are those of all."""

    rules: CompiledRules
    ignored: frozenset[str]
    recipients: Sequence[Recipient]
    pushers: Sequence[tuple[str, Pusher]]  # with the ids of their users


class RoomRecipients(msgspec.Struct, frozen=True):
    """The recipients of one room, as of a change of its members."""

    room: "ref[Room]"  # so that nothing keeps a room in memory that is not used
    members_changed_at: int
    groups: Sequence[RecipientGroup]
    members: dict[str, Member]
    changed: set[str] = msgspec.field(default_factory=set)  # users who have changed since


class Recipients:
    """Finds the recipients of rooms. `apply` is to be subscribed to the log."""

    def __init__(
        self,
        directory: PusherDirectory,
        user_rooms: UserRooms,
        members: Members,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._user_rooms = user_rooms
        self._members = members
        self._clock = clock
        self._rooms: LruCache[int, RoomRecipients] = LruCache(
            "push_recipients", MAX_CACHED, size_of=lambda _, found: 1 + len(found.members)
        )

    def of(self, room: Room) -> Sequence[RecipientGroup]:
        """The recipients of a room. Raises `NotInMemory`."""
        found = self._rooms.get(room.room_nid)
        if (
            found is None
            or found.changed
            or found.members_changed_at != room.members_changed_at
            or found.room() is not room
        ):
            raise NotInMemory(lambda: self._load(room))
        return found.groups

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: find the recipients again where something changed about them."""
        for entry in entries:
            if isinstance(entry, PushersChanged):
                for user_id in entry.user_ids:
                    self._changed(user_id)
            elif isinstance(entry, AccountDataChanged):
                if entry.type in (PUSH_RULES, IGNORED_USER_LIST):
                    self._changed(entry.user_id)
            elif isinstance(entry, DevicesRemoved | AccountDataErased):
                self._changed(entry.user_id)

    def _changed(self, user_id: str) -> None:
        if user_id not in self._directory.users:
            return
        rooms = self._user_rooms.loaded(user_id)
        for room_nid in list(self._rooms_in_memory() if rooms is None else rooms):
            found = self._rooms.peek(room_nid)
            if found is not None:
                found.changed.add(user_id)

    def _rooms_in_memory(self) -> Iterable[int]:
        return [room_nid for room_nid, _ in self._rooms.items()]

    async def _load(self, room: Room) -> None:
        before = self._rooms.peek(room.room_nid)
        known: dict[str, Member] = {}
        if before is not None and before.room() is room:
            known = {**before.members}
            for user_id in before.changed:
                known.pop(user_id, None)
        # It is there while the rest is loaded, so that no change is missed.
        unloaded = RoomRecipients(ref(room), room.members_changed_at, (), known, {UNLOADED})
        self._rooms.put(room.room_nid, unloaded)
        user_ids = self._joined(room)
        pushers = await self._directory.of_all(user_ids)
        time_slice = TimeSlice(self._clock)
        members: dict[str, Member] = {}
        groups: dict[tuple[CompiledRules, frozenset[str]], list[Recipient]] = {}
        for number, user_id in enumerate(user_ids, 1):
            pushing = [pusher for pusher in pushers[user_id] if pusher.is_notifying]
            if not pushing or room.membership(user_id) != "join":
                continue
            member = known.get(user_id)
            if member is None or member.event != room.member_events.get(user_id):
                member = await self._members.load(room, user_id)
            members[user_id] = member
            groups.setdefault((member.rules, member.ignored), []).append(Recipient(member, pushing))
            if number % CHECK_EVERY_ITEMS == 0 and time_slice.is_over:
                await time_slice.next()
        found = [_group(*key, recipients) for key, recipients in groups.items()]
        changed = unloaded.changed
        if self._rooms.peek(room.room_nid) is unloaded:
            changed.discard(UNLOADED)
        self._rooms.put(
            room.room_nid,
            RoomRecipients(ref(room), unloaded.members_changed_at, found, members, changed),
        )

    def _joined(self, room: Room) -> list[str]:
        """The joined members among the users who may have pushers."""
        users = self._directory.users
        if len(users) < len(room.members):
            return [user_id for user_id in users if room.membership(user_id) == "join"]
        return [user_id for user_id in room.joined_members() if user_id in users]


def _group(
    rules: CompiledRules, ignored: frozenset[str], recipients: Sequence[Recipient]
) -> RecipientGroup:
    pushers = [
        (recipient.member.user_id, pusher)
        for recipient in recipients
        for pusher in recipient.pushers
    ]
    return RecipientGroup(rules, ignored, recipients, pushers)
