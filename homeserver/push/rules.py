"""The push rules of local users: stored as account data, changed rule by rule.

All rules of a user are one value, `m.push_rules`, that clients get by `/sync` whenever it changes.

Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from collections.abc import Callable, Iterator

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.event_types import PUSH_RULES
from homeserver.protocol.push_rules.conditions import MAX_PATTERN
from homeserver.protocol.push_rules.rule_set import Action, PushRule, RuleSet, parse_rule_set

MAX_RULES = 1_000  # of one user, without the predefined ones
MAX_RULE_BYTES = 16_384
MAX_RULES_BYTES = 262_144  # of all together
MAX_CONDITIONS = 50  # of one rule
MAX_SINGLE_WILDCARDS = 100  # patterns with `?`, which cost more to match, in all rules


class PushRules:
    """Reads and changes push rules."""

    def __init__(self, account_data: AccountData, *, has_thread_rules: bool = False) -> None:
        self._account_data = account_data
        self._has_thread_rules = has_thread_rules
        self._locks: KeyedLocks[str] = KeyedLocks()

    async def of(self, user_id: str) -> RuleSet:
        """The rules of a user."""
        content = await self._account_data.content(user_id, PUSH_RULES)
        if content is None:
            return RuleSet(has_thread_rules=self._has_thread_rules)
        stored = msgspec.json.decode(content)
        return parse_rule_set(stored, has_thread_rules=self._has_thread_rules)

    async def put(
        self,
        user_id: str,
        kind: str,
        rule: PushRule,
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Add or replace a user-defined rule. Raises `NoSuchNeighbour` and `InvalidParam`."""
        if rule.rule_id.startswith(".") or {"/", "\\"}.intersection(rule.rule_id):
            raise InvalidParam("The id of a push rule has no slashes, and no dot at its start")
        _check_size(rule)

        def change(rules: RuleSet) -> RuleSet:
            changed = rules.put(kind, rule, before=before, after=after)
            _check_total(changed, rules)
            return changed

        await self._change(user_id, change)

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        """Delete a user-defined rule. Raises `NotFound` and `InvalidParam`."""
        await self._change(user_id, lambda rules: rules.without(kind, rule_id))

    async def set_enabled(self, user_id: str, kind: str, rule_id: str, enabled: bool) -> None:
        """Enable or disable a rule, predefined or not. Raises `NotFound`."""
        await self._change(user_id, lambda rules: rules.change(kind, rule_id, enabled=enabled))

    async def set_actions(
        self, user_id: str, kind: str, rule_id: str, actions: list[Action]
    ) -> None:
        """Set the actions of a rule, predefined or not. Raises `NotFound`."""
        await self._change(user_id, lambda rules: rules.change(kind, rule_id, actions=actions))

    async def migrate(self, user_id: str, old_room_id: str, new_room_id: str) -> None:
        """Copy the rules whose id is a room's id to the room that replaces it."""

        def change(rules: RuleSet) -> RuleSet:
            for kind in ("override", "room"):
                own = {rule.rule_id: rule for rule in rules.own.get(kind, ())}
                rule = own.get(old_room_id)
                if rule is not None and new_room_id not in own and len(rules) < MAX_RULES:
                    rules = rules.put(kind, _for_room(rule, new_room_id), after=old_room_id)
            return rules

        await self._change(user_id, change)

    async def _change(self, user_id: str, change: Callable[[RuleSet], RuleSet]) -> None:
        """Change the rules, one change at a time. A change without effect is not stored."""
        async with self._locks.hold(user_id):
            rules = await self.of(user_id)
            changed = change(rules)
            if changed.fingerprint() != rules.fingerprint():
                content = msgspec.json.encode(changed.content_for(user_id))
                await self._account_data.set(user_id, None, PUSH_RULES, content)


def _check_size(rule: PushRule) -> None:
    """Raise `InvalidParam` for a rule that is too large, or too costly to evaluate."""
    if len(msgspec.json.encode(rule)) > MAX_RULE_BYTES:
        raise InvalidParam(f"A push rule has at most {MAX_RULE_BYTES} bytes")
    if rule.conditions is not msgspec.UNSET and len(rule.conditions) > MAX_CONDITIONS:
        raise InvalidParam(f"A push rule has at most {MAX_CONDITIONS} conditions")
    if any(len(pattern) > MAX_PATTERN for pattern in _patterns(rule)):
        raise InvalidParam(f"The pattern of a push rule has at most {MAX_PATTERN} characters")


def _check_total(changed: RuleSet, before: RuleSet) -> None:
    """Raise `InvalidParam` where a user would have too many rules.

    A user who has too many already, from a time when more were allowed, may change them.
    """
    if len(changed) > max(MAX_RULES, len(before)):
        raise InvalidParam(f"A user has at most {MAX_RULES} push rules of their own")
    size = len(changed.fingerprint())
    if size > MAX_RULES_BYTES and size > len(before.fingerprint()):
        raise InvalidParam(f"The push rules of a user have at most {MAX_RULES_BYTES} bytes")
    if _single_wildcards(changed) > max(MAX_SINGLE_WILDCARDS, _single_wildcards(before)):
        raise InvalidParam(f"At most {MAX_SINGLE_WILDCARDS} patterns of a user have a `?`")


def _single_wildcards(rules: RuleSet) -> int:
    return sum(
        "?" in pattern for own in rules.own.values() for rule in own for pattern in _patterns(rule)
    )


def _patterns(rule: PushRule) -> Iterator[str]:
    if rule.pattern is not msgspec.UNSET:
        yield rule.pattern
    for condition in () if rule.conditions is msgspec.UNSET else rule.conditions:
        pattern = condition.get("pattern")
        if isinstance(pattern, str):
            yield pattern


def _for_room(rule: PushRule, room_id: str) -> PushRule:
    """Copy the rule of one room for another."""
    conditions = rule.conditions
    if conditions is not msgspec.UNSET:
        conditions = [
            {name: room_id if value == rule.rule_id else value for name, value in condition.items()}
            for condition in conditions
        ]
    return msgspec.structs.replace(rule, rule_id=room_id, conditions=conditions)


def default_push_rules(user_id: str, *, has_thread_rules: bool = False) -> bytes:
    """The content of `m.push_rules` for a user who has changed nothing."""
    rules = RuleSet(has_thread_rules=has_thread_rules)
    return msgspec.json.encode(rules.content_for(user_id))
