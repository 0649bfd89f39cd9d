"""Invites: whether an invite notifies the user who is invited, and is no member yet.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.push_rules.conditions import (
    EvaluationContext,
    PowerLevelsNeeded,
    ThreadPlace,
)
from homeserver.protocol.push_rules.evaluation import NOTHING, Outcome
from homeserver.push.compiled_rules import UserRules
from homeserver.push.members import Members
from homeserver.push.rule_evaluation import RuleEvaluator
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room


class Invites:
    """Evaluates the rules of invited users. `room` is `None` if this server is not in it."""

    def __init__(self, members: Members, rules: UserRules, evaluator: RuleEvaluator) -> None:
        self._members = members
        self._rules = rules
        self._evaluator = evaluator

    async def outcome(self, stored: StoredEvent, user_id: str, room: Room | None) -> Outcome:
        """The outcome of an invited user's rules for the invite.

        Invites that they block or ignore are not shown to them.
        """
        if not await self._members.allows_invite(user_id, stored.event.sender):
            return NOTHING
        if room is not None:
            member = await self._members.load(room, user_id)
            while True:
                try:
                    evaluation = self._evaluator.evaluation(room, stored, None, member.rules)
                    return evaluation.for_user(user_id, member.display_name)
                except NotInMemory as missing:
                    await missing.load()
        rules = await self._rules.of(user_id)
        try:
            # The room's members and power levels are not known here.
            context = EvaluationContext(stored.event, joined_count=0, thread=ThreadPlace.MAIN)
            return rules.evaluate(context).for_user(user_id)
        except PowerLevelsNeeded:
            return NOTHING


def invites_user(stored: StoredEvent, user_id: str) -> bool:
    """Whether an event invites a user."""
    event = stored.event
    return is_member_event(event, user_id) and event.content.get("membership") == "invite"
