"""A user's push rules: the predefined ones with the user's changes, and the user's own.

A `RuleSet` holds only the user's changes and no user id, so all users without changes have equal
ones. Its content for clients, which is also stored as `m.push_rules`, is made for one user and has
all rules, each kind in the order in which it is checked: the master rule, the user's own, then the
predefined ones. When stored content is read, the predefined rules are those of this version of the
specification, even if they were others when it was stored.

The historical actions `dont_notify` and `coalesce` are kept as the client wrote them, and do
nothing.

Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from homeserver.protocol.errors import InvalidParam, MatrixError, NotFound
from homeserver.protocol.push_rules.predefined import MASTER, OWN_USER_ID, PREDEFINED

POSTCONTENT: Final = "postcontent"
KINDS: Final = ("override", "content", POSTCONTENT, "room", "sender", "underride")
"""The kinds in the order in which they are checked.

The kind `postcontent` has predefined rules only, about threads (MSC4306).
"""

OWN_KINDS: Final = tuple(kind for kind in KINDS if kind != POSTCONTENT)
"""The kinds of which users may have rules of their own."""

Action = str | dict[str, Any]


class PushRule(msgspec.Struct, frozen=True):
    """One rule, in the shape of the API.

    Only rules of the kinds `override` and `underride` have conditions, and only those of the kind
    `content` a pattern.
    """

    rule_id: str
    default: bool
    enabled: bool
    actions: list[Action]
    conditions: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    pattern: str | msgspec.UnsetType = msgspec.UNSET


class NoSuchNeighbour(MatrixError):
    """A rule was to be put before or after one that does not exist or is not the user's."""

    errcode, status = "M_UNKNOWN", 400


_PREDEFINED: Final[Mapping[str, tuple[PushRule, ...]]] = {
    kind: msgspec.convert(PREDEFINED.get(kind, ()), tuple[PushRule, ...]) for kind in KINDS
}


class RuleSet(msgspec.Struct, frozen=True):
    """Push rules of one or many users. Every change returns a new set.

    `own` are the rules that the user made, by kind, the most important first; `changed` are the
    predefined rules that they changed, as they are now, by rule id. `has_thread_rules` says whether
    this server has the rules about threads.
    """

    own: Mapping[str, tuple[PushRule, ...]] = msgspec.field(default_factory=dict)
    changed: Mapping[str, PushRule] = msgspec.field(default_factory=dict)
    has_thread_rules: bool = False

    def rules(self, kind: str) -> list[PushRule]:
        """All rules of a kind, in the order in which they are checked."""
        if kind == POSTCONTENT and not self.has_thread_rules:
            return []
        predefined = [self.changed.get(rule.rule_id, rule) for rule in _PREDEFINED[kind]]
        masters = [rule for rule in predefined if rule.rule_id == MASTER]
        return [*masters, *self.own.get(kind, ()), *predefined[len(masters) :]]

    def get(self, kind: str, rule_id: str) -> PushRule:
        """One rule. Raises `NotFound`."""
        for rule in self.rules(kind):
            if rule.rule_id == rule_id:
                return rule
        raise NotFound("The push rule was not found")

    def put(
        self, kind: str, rule: PushRule, *, before: str | None = None, after: str | None = None
    ) -> "RuleSet":
        """Add a user's rule, or replace the one with its id, which stays enabled or disabled.

        A new rule becomes the most important of the user's unless it is put just `before` or
        `after` another one of theirs; if both are given, `before` counts. A replaced rule keeps its
        place unless it is moved. Raises `NoSuchNeighbour`.
        """
        rules = self.own.get(kind, ())
        place = 0
        for index, known in enumerate(rules):
            if known.rule_id == rule.rule_id:
                place = index
                rule = msgspec.structs.replace(rule, enabled=known.enabled)
        others = [known for known in rules if known.rule_id != rule.rule_id]
        if after is not None:
            place = _place_of(others, after) + 1
        if before is not None:
            place = _place_of(others, before)
        return self._with_own(kind, (*others[:place], rule, *others[place:]))

    def without(self, kind: str, rule_id: str) -> "RuleSet":
        """Delete a user's rule. Raises `NotFound`; `InvalidParam` for a predefined one."""
        if self.get(kind, rule_id).default:
            raise InvalidParam("A predefined push rule can be disabled, but not deleted")
        return self._with_own(
            kind, tuple(rule for rule in self.own[kind] if rule.rule_id != rule_id)
        )

    def change(
        self,
        kind: str,
        rule_id: str,
        *,
        enabled: bool | None = None,
        actions: list[Action] | None = None,
    ) -> "RuleSet":
        """Enable or disable any rule, or set its actions. Raises `NotFound`."""
        rule = self.get(kind, rule_id)
        rule = msgspec.structs.replace(
            rule,
            enabled=rule.enabled if enabled is None else enabled,
            actions=rule.actions if actions is None else actions,
        )
        if rule.default:
            return replace(self, changed={**self.changed, rule_id: rule})
        rules = tuple(rule if known.rule_id == rule_id else known for known in self.own[kind])
        return self._with_own(kind, rules)

    def __len__(self) -> int:
        """The number of rules that the user made."""
        return sum(map(len, self.own.values()))

    def content_for(self, user_id: str) -> dict[str, Any]:
        """The content of `m.push_rules` for a user who has these rules."""
        return {
            "global": {
                kind: [render_rule(rule, user_id) for rule in self.rules(kind)]
                for kind in KINDS
                if kind != POSTCONTENT or self.has_thread_rules
            }
        }

    def fingerprint(self) -> bytes:
        """A hash that is the same for equal sets, and for no others."""
        return msgspec.json.encode([self.own, self.changed], order="deterministic")

    def _with_own(self, kind: str, rules: tuple[PushRule, ...]) -> "RuleSet":
        return replace(self, own={**self.own, kind: rules})


def parse_rule_set(content: Mapping[str, Any], *, has_thread_rules: bool = False) -> RuleSet:
    """The rules in stored content of `m.push_rules`.

    Predefined rules that this version does not have are left out, and so are invalid rules.
    """
    rules = content.get("global")
    rule_set = RuleSet(has_thread_rules=has_thread_rules)
    for kind in KINDS:
        stored = rules.get(kind) if isinstance(rules, dict) else None
        values = stored if isinstance(stored, list) else []
        parsed = [rule for value in values if (rule := _parse_rule(value)) is not None]
        own = tuple(rule for rule in parsed if not rule.default)
        if own and kind in OWN_KINDS:
            rule_set = rule_set._with_own(kind, own)
        known = {rule.rule_id: rule for rule in rule_set.rules(kind) if rule.default}
        for rule in parsed:
            predefined = known.get(rule.rule_id) if rule.default else None
            if predefined is not None and (rule.enabled, rule.actions) != (
                predefined.enabled,
                predefined.actions,
            ):
                rule_set = rule_set.change(
                    kind, rule.rule_id, enabled=rule.enabled, actions=rule.actions
                )
    return rule_set


def render_rule(rule: PushRule, user_id: str) -> PushRule:
    """A rule as its user sees it: with their id in place of the placeholder."""
    if not rule.default or rule.conditions is msgspec.UNSET:
        return rule
    conditions = [
        {name: user_id if value == OWN_USER_ID else value for name, value in condition.items()}
        for condition in rule.conditions
    ]
    return msgspec.structs.replace(rule, conditions=conditions)


def _parse_rule(value: object) -> PushRule | None:
    try:
        return msgspec.convert(value, PushRule)
    except msgspec.ValidationError:
        return None


def _place_of(rules: list[PushRule], rule_id: str) -> int:
    for place, rule in enumerate(rules):
        if rule.rule_id == rule_id:
            return place
    raise NoSuchNeighbour(f"before/after rule not found: {rule_id}")
