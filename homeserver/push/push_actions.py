"""Push actions: the notifications that the events of a room cause for one of its members.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Iterable

import msgspec

from homeserver.protocol.push_rules.evaluation import NOTHING, Outcome
from homeserver.push.members import Member
from homeserver.push.mentions import mentioned_users, mentions_room, mentions_user
from homeserver.push.rule_evaluation import RuleEvaluator, with_joined_counts
from homeserver.push.threads import Threads
from homeserver.push.unread_counter import OwnEvent, PushAction, UnreadCounter
from homeserver.rooms.events.imported_events import is_silent
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room


class SharedPushActions(msgspec.Struct, frozen=True):
    """The actions of successive events for all members but the `concerned`, newest first."""

    actions: list[PushAction]
    concerned: frozenset[str]


class PushActions:
    """Decides which events notify a member, without waiting."""

    def __init__(self, evaluator: RuleEvaluator, threads: Threads) -> None:
        self._evaluator = evaluator
        self._threads = threads

    def among(
        self,
        room: Room,
        member: Member,
        newest_first: Iterable[StoredEvent],
        joined_count: int,
        counter: UnreadCounter,
    ) -> list[PushAction | OwnEvent]:
        """The items for a member's counter from successive events, newest first.

        `joined_count` is the number of members after the newest of them. Of the member's own events
        only the newest counts in each part of the timeline, and events before it are read. Raises
        `NotInMemory`.
        """
        items: list[PushAction | OwnEvent] = []
        own: dict[str | None, int] = {}
        counted = with_joined_counts(joined_count, newest_first)
        for age, (stored, joined) in enumerate(counted):
            position = stored.position or 0
            if is_silent(stored.event):
                continue
            if stored.event.sender == member.user_id:
                thread = self._threads.of(room, stored)
                if thread not in own:
                    own[thread] = position
                    items.append(OwnEvent(position, thread))
            elif not (None in own and "m.relates_to" not in stored.event.content):
                action = self.action(room, member, stored, joined, counter, age)
                if action is not None and position > own.get(action.thread, 0):
                    items.append(action)
        return items

    def common(
        self, room: Room, member: Member, newest_first: Iterable[StoredEvent], joined_count: int
    ) -> SharedPushActions | None:
        """The actions for all members with a member's rules and ignored users, and no new receipts.

        The result differs for the senders, for the mentioned users, and for the subscribers of
        threads. `None` where the rules depend on the user, so that each member is evaluated
        separately. Raises `NotInMemory`.
        """
        actions: list[PushAction] = []
        concerned: set[str] = set()
        counted = with_joined_counts(joined_count, newest_first)
        for age, (stored, joined) in enumerate(counted):
            event = stored.event
            if is_silent(event):
                continue
            concerned.add(event.sender)
            if stored.redaction is not None or is_ignored(member.ignored, stored):
                continue
            evaluation = self._evaluator.evaluation(room, stored, joined, member.rules)
            if evaluation.branches:
                return None
            concerned.update(self._evaluator.subscribers(room, stored, evaluation))
            outcome = evaluation.otherwise
            if outcome.notify:
                thread = self._threads.of(room, stored)
                mentioned = mentions_room(event)
                if not mentioned:
                    concerned |= mentioned_users(event)
                position = stored.position or 0
                actions.append(PushAction(position, thread, outcome.highlight, mentioned, age))
        return SharedPushActions(actions, frozenset(concerned))

    def outcome(
        self, room: Room, member: Member, stored: StoredEvent, joined_count: int | None
    ) -> Outcome:
        """The outcome of the push rules for a member, read or not. Raises `NotInMemory`.

        Events of users whom the member ignores do not notify, except state events, which are still
        shown; nor do old messages that were imported without notification.
        """
        if stored.redaction is not None or stored.event.sender == member.user_id:
            return NOTHING
        if is_silent(stored.event) or is_ignored(member.ignored, stored):
            return NOTHING
        evaluation = self._evaluator.evaluation(room, stored, joined_count, member.rules)
        subscribers = self._evaluator.subscribers(room, stored, evaluation)
        return evaluation.for_user(
            member.user_id, member.display_name, is_subscribed=member.user_id in subscribers
        )

    def thread(self, room: Room, stored: StoredEvent) -> str | None:
        """The root of an event's thread, `None` for the main one. Raises `NotInMemory`."""
        return self._threads.of(room, stored)

    def action(
        self,
        room: Room,
        member: Member,
        stored: StoredEvent,
        joined_count: int | None,
        counter: UnreadCounter,
        age: int = 0,
    ) -> PushAction | None:
        """The action of an event that notifies the member and is unread, if it does.

        Raises `NotInMemory`.
        """
        position = stored.position or 0
        if counter.is_all_read(position):
            return None
        outcome = self.outcome(room, member, stored, joined_count)
        if not outcome.notify:
            return None
        thread = self._threads.of(room, stored)
        mentioned = mentions_user(stored.event, member.user_id)
        return PushAction(position, thread, outcome.highlight, mentioned, age)


def is_ignored(ignored: frozenset[str], stored: StoredEvent) -> bool:
    """Whether an event is one of a user whom its reader ignores."""
    return stored.event.sender in ignored and stored.event.state_key is None
