"""Evaluation: what a user's push rules say of an event.

Rules are compiled once for all users who have equal ones. An event is then judged once by them, and
the verdict tells for each user what the first rule that matches wants done. Of an ordinary message
it is the same for everybody; of one that mentions some users, two or three comparisons are left.

That nobody is notified of their own events is for the caller to see to.

Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from homeserver.protocol.push_rules.conditions import (
    BODY,
    Condition,
    EvaluationContext,
    UserTest,
    compile_condition,
    cost,
    event_match,
    is_value,
)
from homeserver.protocol.push_rules.rule_set import KINDS, Action, PushRule, RuleSet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be done about an event for one user."""

    notify: bool
    highlight: bool
    actions: Sequence[Action]


NOTHING: Final = Outcome(notify=False, highlight=False, actions=())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What rules say of one event: the first of `branches` whose tests a user passes counts."""

    otherwise: Outcome
    branches: Sequence[tuple[Sequence[UserTest], Outcome]] = ()

    def for_user(self, user_id: str, display_name: str | None = None) -> Outcome:
        """What is to be done for a user; `display_name` is theirs in the room."""
        for tests, outcome in self.branches:
            if all(test(user_id, display_name) for test in tests):
                return outcome
        return self.otherwise


_NO_RULE: Final = Evaluation(NOTHING)


class CompiledRules:
    """The enabled rules of a set, in the order in which they are checked."""

    __slots__ = ("_rules",)

    def __init__(self, rule_set: RuleSet) -> None:
        enabled = [(kind, rule) for kind in KINDS for rule in rule_set.rules(kind) if rule.enabled]
        self._rules = [
            (_conditions(kind, rule), Evaluation(_outcome(rule.actions))) for kind, rule in enabled
        ]

    def evaluate(self, occasion: EvaluationContext) -> Evaluation:
        """What the rules say of an event.

        Raises `PowerLevelsNeeded` where that depends on them and the occasion has none.
        """
        branches = []
        for conditions, verdict in self._rules:
            tests: list[UserTest] = []
            for condition in conditions:
                answer = condition(occasion)
                if answer is False:
                    break
                if answer is not True:
                    tests.append(answer)
            else:
                if tests:
                    branches.append((tests, verdict.otherwise))
                elif branches:
                    return Evaluation(verdict.otherwise, branches)
                else:
                    return verdict
        return Evaluation(NOTHING, branches) if branches else _NO_RULE


def _conditions(kind: str, rule: PushRule) -> list[Condition]:
    if kind == "content":
        return [event_match({"key": BODY, "pattern": rule.pattern})]
    if kind == "room":
        return [is_value("room_id", rule.rule_id)]
    if kind == "sender":
        return [is_value("sender", rule.rule_id)]
    if rule.conditions is msgspec.UNSET:
        return []
    return [compile_condition(condition) for condition in sorted(rule.conditions, key=cost)]


def _outcome(actions: Sequence[Action]) -> Outcome:
    highlight = False
    for action in actions:
        if isinstance(action, dict) and action.get("set_tweak") == "highlight":
            highlight = action.get("value", True) is True
    return Outcome("notify" in actions, highlight, actions)
