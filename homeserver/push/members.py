"""Members: users in a room, with the data that decides which of its events notify them."""

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.protocol.proposals.invite_filter import InviteAction
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.compiled_rules import UserRules
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.room.room import Room


class Member(msgspec.Struct, frozen=True):
    """A user in a room.

    `event` is the numeric id of their member event, `since` the position of their last join.
    """

    user_id: str
    rules: CompiledRules
    ignored: frozenset[str]
    event: int | None
    since: int
    display_name: str | None


class Members:
    """Loads members, and checks whether they are still current."""

    def __init__(self, events: EventStore, rules: UserRules, account_data: AccountData) -> None:
        self._events = events
        self._rules = rules
        self._account_data = account_data

    def is_current(self, room: Room, member: Member) -> bool:
        """Whether nothing has changed about a member; false also where that is not in memory."""
        user_id = member.user_id
        return (
            self._rules.find(user_id) is member.rules
            and room.member_events.get(user_id) == member.event
            and self._account_data.find_ignored_users(user_id) == member.ignored
        )

    async def allows_invite(self, user_id: str, inviter: str) -> bool:
        """Whether invites by a user are shown to another one."""
        action = await self._account_data.invite_action(user_id, inviter)
        return action is InviteAction.ALLOW

    async def load(self, room: Room, user_id: str) -> Member:
        """Load a user as a member of a room."""
        while True:
            number = room.member_events.get(user_id)
            since, display_name = await self._history(room, number)
            ignored = await self._account_data.ignored_users(user_id)
            rules = await self._rules.of(user_id)
            member = Member(user_id, rules, ignored, number, since, display_name)
            if self.is_current(room, member):
                return member

    async def _history(self, room: Room, number: int | None) -> tuple[int, str | None]:
        """The position of the user's join, by the member events up to this one, and their name."""
        since, name = 0, None
        newest = number
        while number is not None:
            stored = (await self._events.load(room.version, [number]))[number]
            content = stored.event.content
            if content.get("membership") != "join":
                break
            since = stored.log_position
            if number == newest:
                name = content.get("displayname")
            number = stored.replaces
        return since, name if isinstance(name, str) else None
