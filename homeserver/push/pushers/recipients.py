"""Recipients: the members of a room who have pushers, in groups that are decided about together.

Members with equal push rules and ignored users form a group, so that an event costs one evaluation
for all of them, as most users have the predefined rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.accounts.user_data.account_data import AccountDataChanged, AccountDataErased
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import CHECK_EVERY_ITEMS, TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_types import IGNORED_USER_LIST, PUSH_RULES
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.members import Member, Members
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.pusher import Pusher
from homeserver.rooms.room.room import Room

MAX_CACHED = 100_000  # recipients of all rooms together


@dataclass(frozen=True, slots=True)
class Recipient:
    """A member with the pushers that are enabled."""

    member: Member
    pushers: Sequence[Pusher]


@dataclass(frozen=True, slots=True)
class RecipientGroup:
    """Members with the same rules, who ignore the same users."""

    rules: CompiledRules
    ignored: frozenset[str]
    recipients: Sequence[Recipient]


_State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class RoomRecipients:
    """The recipients of one room, as of a state of its members and of all pushers."""

    room: Room
    state: _State
    groups: Sequence[RecipientGroup]
    members: dict[str, Member]


class Recipients:
    """Finds the recipients of rooms. `apply` is to be subscribed to the log."""

    def __init__(self, directory: PusherDirectory, members: Members, clock: Clock) -> None:
        self._directory = directory
        self._members = members
        self._clock = clock
        self._changes = 0  # of the rules and ignored users of users with pushers
        self._rooms: LruCache[int, RoomRecipients] = LruCache(
            "push_recipients", MAX_CACHED, size_of=lambda _, found: 1 + len(found.members)
        )

    def of(self, room: Room) -> Sequence[RecipientGroup]:
        """The recipients of a room. Raises `NotInMemory`."""
        found = self._rooms.get(room.room_nid)
        if found is None or found.room is not room or found.state != self._state(room):
            raise NotInMemory(lambda: self._load(room))
        return found.groups

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: rules and ignored users decide about groups (called by the log)."""
        for entry in entries:
            if isinstance(entry, AccountDataChanged):
                if (
                    entry.type in (PUSH_RULES, IGNORED_USER_LIST)
                    and entry.user_id in self._directory.users
                ):
                    self._changes += 1
            elif isinstance(entry, AccountDataErased):
                self._changes += 1

    def _state(self, room: Room) -> _State:
        return room.members_changed_at, self._directory.generation, self._changes

    async def _load(self, room: Room) -> None:
        before = self._rooms.peek(room.room_nid)
        known = before.members if before is not None and before.room is room else {}
        state = self._state(room)
        user_ids = self._joined(room)
        pushers = await self._directory.of_all(user_ids)
        time_slice = TimeSlice(self._clock)
        members: dict[str, Member] = {}
        groups: dict[tuple[CompiledRules, frozenset[str]], list[Recipient]] = {}
        for number, user_id in enumerate(user_ids, 1):
            pushing = [pusher for pusher in pushers[user_id] if pusher.is_pushing]
            if not pushing or room.membership(user_id) != "join":
                continue
            member = known.get(user_id)
            if member is None or not self._members.is_current(room, member):
                member = await self._members.load(room, user_id)
            members[user_id] = member
            groups.setdefault((member.rules, member.ignored), []).append(Recipient(member, pushing))
            if number % CHECK_EVERY_ITEMS == 0 and time_slice.is_over:
                await time_slice.next()
        found = [RecipientGroup(*key, recipients) for key, recipients in groups.items()]
        # What changed meanwhile is loaded again by the next attempt.
        self._rooms.put(room.room_nid, RoomRecipients(room, state, found, members))

    def _joined(self, room: Room) -> list[str]:
        """The joined members among the users who may have pushers."""
        users = self._directory.users
        if len(users) < len(room.members):
            return [user_id for user_id in users if room.membership(user_id) == "join"]
        return [user_id for user_id in room.joined_members() if user_id in users]
