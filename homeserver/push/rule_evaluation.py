"""The evaluation of push rules for the events of rooms.

Each event is evaluated once for all users with the same rules, by the members and power levels that
the room had when it was sent. So the result does not depend on when a user syncs, and many users
cost little more than one. A redacted event notifies no user: there is nothing left to read.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Collection, Iterable, Iterator

from msgspec.structs import replace

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import CREATE_KEY, POWER_LEVELS_KEY
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.push_rules.conditions import (
    EvaluationContext,
    PowerLevelsNeeded,
    ThreadNeeded,
    ThreadPlace,
)
from homeserver.protocol.push_rules.evaluation import (
    CompiledRules,
    Evaluation,
    evaluate_in_thread,
)
from homeserver.push.thread_subscribers import ThreadSubscribers
from homeserver.push.threads import Threads
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.room.room import Room

MAX_CACHED_EVALUATIONS = 100_000
MAX_CACHED_POWER_LEVELS = 1_000


class RuleEvaluator:
    """Evaluates push rules for events, and caches the evaluations."""

    def __init__(
        self, visibility: Visibility, threads: Threads, subscribers: ThreadSubscribers
    ) -> None:
        self._visibility = visibility
        self._threads = threads
        self._subscribers = subscribers
        self._evaluations: LruCache[tuple[CompiledRules, int], Evaluation] = LruCache(
            "push_rule_evaluations", MAX_CACHED_EVALUATIONS
        )
        # By root of the state.
        self._levels: LruCache[bytes, PowerLevels] = LruCache(
            "power_levels", MAX_CACHED_POWER_LEVELS
        )

    def evaluation(
        self, room: Room, stored: StoredEvent, joined_count: int | None, rules: CompiledRules
    ) -> Evaluation:
        """The evaluation of rules for an event. Raises `NotInMemory`.

        `joined_count` is the number of members when it was sent. Where that is unknown, `None`, the
        current number is used, and the evaluation is not cached.
        """
        key = (rules, stored.event_nid)
        evaluation = self._evaluations.get(key)
        if evaluation is None:
            if joined_count is None:
                return self._evaluate(room, stored, room.joined_count, rules)
            evaluation = self._evaluations.put(
                key, self._evaluate(room, stored, joined_count, rules)
            )
        return evaluation

    def subscribers(
        self, room: Room, stored: StoredEvent, evaluation: Evaluation
    ) -> Collection[str]:
        """The users for whom `of_subscribers` of an event's evaluation counts.

        Raises `NotInMemory`.
        """
        return () if evaluation.of_subscribers is None else self._subscribers.of(room, stored)

    def _evaluate(
        self, room: Room, stored: StoredEvent, joined_count: int, rules: CompiledRules
    ) -> Evaluation:
        levels = self._levels.get(stored.state_before)
        is_related = "m.relates_to" in stored.event.content
        place = ThreadPlace.UNKNOWN if is_related else ThreadPlace.MAIN
        try:
            context = EvaluationContext(stored.event, joined_count, levels, place)
            try:
                return rules.evaluate(context)
            except ThreadNeeded:
                if self._threads.of(room, stored) is None:
                    return rules.evaluate(replace(context, thread=ThreadPlace.MAIN))
                return evaluate_in_thread(rules, context)
        except PowerLevelsNeeded:
            raise NotInMemory(lambda: self._load_levels(room, stored.state_before)) from None

    async def _load_levels(self, room: Room, root: bytes) -> None:
        state = await self._visibility.state_at(room, root, [CREATE_KEY, POWER_LEVELS_KEY])
        given = state.get(POWER_LEVELS_KEY)
        content = None if given is None else given.event.content
        self._levels.put(root, PowerLevels(state[CREATE_KEY].event, content))


def with_joined_counts(
    joined_count: int, newest_first: Iterable[StoredEvent]
) -> Iterator[tuple[StoredEvent, int]]:
    """Successive events with the number of joined members after each.

    `joined_count` is the number after the newest of them.
    """
    joined = joined_count
    for stored in newest_first:
        yield stored, joined
        if is_member_event(stored.event):
            before = stored.replaced
            joined += (before is not None and before.content.get("membership") == "join") - (
                stored.event.content.get("membership") == "join"
            )
