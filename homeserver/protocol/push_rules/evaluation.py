"""Evaluation: the outcome of a user's push rules for an event.

Rules are compiled once for all users who have equal ones. An event is then evaluated once by them,
and the evaluation gives for each user the actions of the first rule that matches. For an ordinary
message it is the same for all users; for one that mentions some, two or three comparisons remain.

The caller must ensure that users are not notified of their own events.

Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from homeserver.protocol.push_rules.conditions import (
    BODY,
    Condition,
    EvaluationContext,
    ThreadPlace,
    UserTest,
    compile_condition,
    cost,
    event_match,
    is_value,
    type_test,
)
from homeserver.protocol.push_rules.rule_set import KINDS, Action, PushRule, RuleSet

MAX_TYPES: Final = 50  # of events, for which the rules that can match are kept


class Outcome(msgspec.Struct, frozen=True):
    """The actions for one user and one event."""

    notify: bool
    highlight: bool
    actions: Sequence[Action]


NOTHING: Final = Outcome(notify=False, highlight=False, actions=())


class Evaluation(msgspec.Struct, frozen=True):
    """The result of rules for one event: the first of `branches` that a user passes counts.

    `of_subscribers` is that for the users who are subscribed to the event's thread, where the rules
    ask for it.
    """

    otherwise: Outcome
    branches: Sequence[tuple[Sequence[UserTest], Outcome]] = ()
    of_subscribers: "Evaluation | None" = None

    def for_user(
        self, user_id: str, display_name: str | None = None, *, is_subscribed: bool = False
    ) -> Outcome:
        """The outcome for a user; `display_name` is theirs in the room."""
        if is_subscribed and self.of_subscribers is not None:
            return self.of_subscribers.for_user(user_id, display_name)
        for tests, outcome in self.branches:
            if all(test(user_id, display_name) for test in tests):
                return outcome
        return self.otherwise


_NO_RULE: Final = Evaluation(NOTHING)


class _CompiledRule:
    """A rule: tests of the event's type alone, its other conditions, and what it says."""

    __slots__ = ("conditions", "type_tests", "verdict")

    def __init__(self, kind: str, rule: PushRule) -> None:
        self.conditions: list[Condition] = []
        self.type_tests: list[Callable[[str], bool]] = []
        self.verdict = Evaluation(_outcome(rule.actions))
        if kind == "content":
            self.conditions.append(event_match({"key": BODY, "pattern": rule.pattern}))
        elif kind == "room":
            self.conditions.append(is_value("room_id", rule.rule_id))
        elif kind == "sender":
            self.conditions.append(is_value("sender", rule.rule_id))
        elif rule.conditions is not msgspec.UNSET:
            for condition in sorted(rule.conditions, key=cost):
                test = type_test(condition)
                if test is None:
                    self.conditions.append(compile_condition(condition))
                else:
                    self.type_tests.append(test)


class CompiledRules:
    """The enabled rules of a set, in the order in which they are checked.

    Most of the predefined rules are for events of one type: the rules that can match are selected
    once for each type.
    """

    __slots__ = ("_by_type", "_rules")

    def __init__(self, rule_set: RuleSet) -> None:
        enabled = [(kind, rule) for kind in KINDS for rule in rule_set.rules(kind) if rule.enabled]
        self._rules = [_CompiledRule(kind, rule) for kind, rule in enabled]
        self._by_type: dict[str, list[tuple[list[Condition], Evaluation]]] = {}

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Evaluate the rules on an event.

        Raises `PowerLevelsNeeded` if the result depends on the power levels and the context has
        none, and `ThreadNeeded` in the same way.
        """
        branches = []
        event_type = context.event.type
        selected = self._by_type.get(event_type)
        for conditions, verdict in self._select(event_type) if selected is None else selected:
            tests: list[UserTest] = []
            for condition in conditions:
                holds = condition(context)
                if holds is False:
                    break
                if holds is not True:
                    tests.append(holds)
            else:
                if tests:
                    branches.append((tests, verdict.otherwise))
                elif branches:
                    return Evaluation(verdict.otherwise, branches)
                else:
                    return verdict
        return Evaluation(NOTHING, branches) if branches else _NO_RULE

    def _select(self, event_type: str) -> list[tuple[list[Condition], Evaluation]]:
        selected = [
            (rule.conditions, rule.verdict)
            for rule in self._rules
            if all(test(event_type) for test in rule.type_tests)
        ]
        if len(self._by_type) >= MAX_TYPES:
            self._by_type.clear()
        self._by_type[event_type] = selected
        return selected


def evaluate_in_thread(rules: CompiledRules, context: EvaluationContext) -> Evaluation:
    """The evaluation for an event that lies in a thread; raises `PowerLevelsNeeded`."""
    others = rules.evaluate(replace(context, thread=ThreadPlace.UNSUBSCRIBED))
    subscribers = rules.evaluate(replace(context, thread=ThreadPlace.SUBSCRIBED))
    return replace(others, of_subscribers=subscribers)


def _outcome(actions: Sequence[Action]) -> Outcome:
    highlight = False
    for action in actions:
        if isinstance(action, dict) and action.get("set_tweak") == "highlight":
            highlight = action.get("value", True) is True
    return Outcome("notify" in actions, highlight, actions)
