"""Notices: what the events of a room are to one of its members.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Iterable
from dataclasses import dataclass

from homeserver.protocol.push_rules.evaluation import NOTHING, Outcome
from homeserver.push.members import Member
from homeserver.push.mentions import named_users, names, names_room
from homeserver.push.rule_evaluation import RuleEvaluator, with_joined_counts
from homeserver.push.threads import Threads
from homeserver.push.unread_counter import OwnEvent, PushAction, UnreadCounter
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room


@dataclass(frozen=True, slots=True)
class SharedPushActions:
    """What successive events are to all members alike, newest first, but to those `concerned`."""

    notices: list[PushAction]
    concerned: frozenset[str]


class PushActions:
    """Finds out which events notify a member, without waiting."""

    def __init__(self, judgements: RuleEvaluator, threads: Threads) -> None:
        self._evaluator = judgements
        self._threads = threads

    def among(
        self,
        room: Room,
        member: Member,
        newest_first: Iterable[StoredEvent],
        joined_count: int,
        tally: UnreadCounter,
    ) -> list[PushAction | OwnEvent]:
        """What is to be taken into a tally of successive events, newest first.

        `joined_count` is the number of members after the newest of them. Of the member's own events
        only the newest counts in each part of the timeline, and what is before it is read. Raises
        `NotInMemory`.
        """
        news: list[PushAction | OwnEvent] = []
        own: dict[str | None, int] = {}
        counted = with_joined_counts(joined_count, newest_first)
        for age, (stored, joined) in enumerate(counted):
            position = stored.position or 0
            if stored.event.sender == member.user_id:
                thread = self._threads.of(room, stored)
                if thread not in own:
                    own[thread] = position
                    news.append(OwnEvent(position, thread))
            elif not (None in own and "m.relates_to" not in stored.event.content):
                notice = self.action(room, member, stored, joined, tally, age)
                if notice is not None and position > own.get(notice.thread, 0):
                    news.append(notice)
        return news

    def common(
        self, room: Room, member: Member, newest_first: Iterable[StoredEvent], joined_count: int
    ) -> SharedPushActions | None:
        """The same for all who have the rules of a member, ignore the same users and read nothing.

        Different are the senders and those who are named. `None` where the rules ask who somebody
        is, so that each has to be looked at alone. Raises `NotInMemory`.
        """
        notices: list[PushAction] = []
        concerned: set[str] = set()
        counted = with_joined_counts(joined_count, newest_first)
        for age, (stored, joined) in enumerate(counted):
            event = stored.event
            concerned.add(event.sender)
            if stored.redaction is not None or _is_ignored(member, stored):
                continue
            verdict = self._evaluator.evaluation(room, stored, joined, member.rules)
            if verdict.branches:
                return None
            outcome = verdict.otherwise
            if outcome.notify:
                thread = self._threads.of(room, stored)
                named = names_room(event)
                if not named:
                    concerned |= named_users(event)
                position = stored.position or 0
                notices.append(PushAction(position, thread, outcome.highlight, named, age))
        return SharedPushActions(notices, frozenset(concerned))

    def outcome(
        self, room: Room, member: Member, stored: StoredEvent, joined_count: int | None
    ) -> Outcome:
        """What is to be done about an event for a member, be it read or not. Raises `NotInMemory`.

        What somebody sends whom the member ignores does not notify, but for state events, which
        are shown nevertheless.
        """
        if stored.redaction is not None or stored.event.sender == member.user_id:
            return NOTHING
        if _is_ignored(member, stored):
            return NOTHING
        verdict = self._evaluator.evaluation(room, stored, joined_count, member.rules)
        return verdict.for_user(member.user_id, member.display_name)

    def thread(self, room: Room, stored: StoredEvent) -> str | None:
        """The root of an event's thread; `None` for the main timeline. Raises `NotInMemory`."""
        return self._threads.of(room, stored)

    def action(
        self,
        room: Room,
        member: Member,
        stored: StoredEvent,
        joined_count: int | None,
        tally: UnreadCounter,
        age: int = 0,
    ) -> PushAction | None:
        """The notice of an event that notifies the member and is not read. Raises `NotInMemory`."""
        position = stored.position or 0
        if tally.is_all_read(position):
            return None
        outcome = self.outcome(room, member, stored, joined_count)
        if not outcome.notify:
            return None
        thread = self._threads.of(room, stored)
        named = names(stored.event, member.user_id)
        return PushAction(position, thread, outcome.highlight, named, age)


def _is_ignored(member: Member, stored: StoredEvent) -> bool:
    return stored.event.sender in member.ignored and stored.event.state_key is None
