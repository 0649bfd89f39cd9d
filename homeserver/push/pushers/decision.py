"""The decision: which members an event is pushed to, by their push rules at that moment.

Members with the same rules are decided about together, and their pushers get the same object. What
changes before it is sent, such as a receipt, is checked by the pusher.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Awaitable, Callable, Collection

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.push_rules.evaluation import Evaluation, Outcome
from homeserver.push.push_actions import is_ignored
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.invites import Invites, invites_user
from homeserver.push.pushers.push_items import PushItem
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.queued_push import QueuedPush, build_push
from homeserver.push.pushers.recipients import RecipientGroup, Recipients
from homeserver.push.rule_evaluation import RuleEvaluator, with_joined_counts
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

PutPush = Callable[[Pusher, QueuedPush], None]
OnRedaction = Callable[[str, int], None]


class PushDecision:
    """Decides about events: `decide` is for the reader of `PushItemSource`.

    `put` gets each push with the pusher that has to send it; `on_redaction` the members of a room
    in which an event was redacted, whose counts may be lower now.
    """

    def __init__(
        self,
        rooms: RoomRegistry,
        directory: PusherDirectory,
        recipients: Recipients,
        invites: Invites,
        evaluator: RuleEvaluator,
        put: PutPush,
        on_redaction: OnRedaction,
    ) -> None:
        self._rooms = rooms
        self._directory = directory
        self._recipients = recipients
        self._invites = invites
        self._evaluator = evaluator
        self._put = put
        self._on_redaction = on_redaction

    def decide(self, item: PushItem) -> Awaitable[None] | None:
        """Give an event to the pushers of those whom it notifies."""
        room = self._rooms.loaded(item.room_nid)
        if item.invited is not None:
            return self._decide_invite(item, item.invited, None)
        if room is None:
            return self._load_and_decide(item)
        try:
            pushes = self._pushes(room, item)
        except NotInMemory as missing:
            return self._load_and_decide(item, missing)
        for pusher, push in pushes:
            self._put(pusher, push)
        event = item.stored.event
        if event.state_key in self._directory.users and invites_user(item.stored, event.state_key):
            return self._decide_invite(item, event.state_key, room)
        return None

    async def _load_and_decide(self, item: PushItem, missing: NotInMemory | None = None) -> None:
        if missing is not None:
            await missing.load()
        elif await self._rooms.by_number(item.room_nid) is None:
            return
        deciding = self.decide(item)
        if deciding is not None:
            await deciding

    def _pushes(self, room: Room, item: PushItem) -> list[tuple[Pusher, QueuedPush]]:
        groups = self._recipients.of(room)
        if not groups:
            return []
        if item.is_redaction:
            for group in groups:
                for recipient in group.recipients:
                    self._on_redaction(recipient.member.user_id, room.room_nid)
        if item.stored.redaction is not None or item.stored.position is None:
            return []
        joined = _joined_count(room, item.position)
        pushes: list[tuple[Pusher, QueuedPush]] = []
        for group in groups:
            if not is_ignored(group.ignored, item.stored):
                self._add_pushes_of(room, group, item, joined, pushes)
        return pushes

    def _add_pushes_of(
        self,
        room: Room,
        group: RecipientGroup,
        item: PushItem,
        joined: int | None,
        pushes: list[tuple[Pusher, QueuedPush]],
    ) -> None:
        evaluation = self._evaluator.evaluation(room, item.stored, joined, group.rules)
        sender = item.stored.event.sender
        subscribers = self._evaluator.subscribers(room, item.stored, evaluation)
        if evaluation.branches or subscribers:
            self._add_each(group, evaluation, subscribers, item, pushes)
        elif evaluation.otherwise.notify:
            push = _push_of(item, evaluation.otherwise)
            pushes.extend(
                [(pusher, push) for user_id, pusher in group.pushers if user_id != sender]
            )

    def _add_each(
        self,
        group: RecipientGroup,
        evaluation: Evaluation,
        subscribers: Collection[str],
        item: PushItem,
        pushes: list[tuple[Pusher, QueuedPush]],
    ) -> None:
        """Add the pushes of an event that notifies members differently.

        It mentions some of them, or some are subscribed to its thread.
        """
        sender = item.stored.event.sender
        by_outcome: dict[int, QueuedPush] = {}
        for recipient in group.recipients:
            member = recipient.member
            outcome = evaluation.for_user(
                member.user_id, member.display_name, is_subscribed=member.user_id in subscribers
            )
            if outcome.notify and member.user_id != sender:
                push = by_outcome.get(id(outcome))
                if push is None:
                    push = by_outcome[id(outcome)] = _push_of(item, outcome)
                pushes.extend([(pusher, push) for pusher in recipient.pushers])

    async def _decide_invite(self, item: PushItem, user_id: str, room: Room | None) -> None:
        """Give an invite to the pushers of the invited user, who is no member yet."""
        pushers = [each for each in await self._directory.of(user_id) if each.is_notifying]
        if not pushers or item.stored.redaction is not None:
            return
        outcome = await self._invites.outcome(item.stored, user_id, room)
        if outcome.notify:
            push = build_push(
                item.position, item.room_nid, item.stored, outcome, is_out_of_room=room is None
            )
            for pusher in pushers:
                self._put(pusher, push)


def _push_of(item: PushItem, outcome: Outcome) -> QueuedPush:
    return build_push(item.position, item.room_nid, item.stored, outcome)


def _joined_count(room: Room, position: int) -> int | None:
    """The number of joined members at a recent event; `None` where that is not in memory."""
    if position == room.last_position:
        return room.joined_count
    later = room.events_after(position - 1)
    if not later:
        return None
    *_, (_, joined) = with_joined_counts(room.joined_count, reversed(later))
    return joined
