"""Push rules over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import BadJson, InvalidParam, MissingParam, NotFound
from homeserver.protocol.push_rules.rule_set import (
    KINDS,
    OWN_KINDS,
    Action,
    PushRule,
    render_rule,
)
from homeserver.push.rules import PushRules
from homeserver.web.routes import Route

# Other actions are defined by clients, named like Java packages; the last two are obsolete.
ACTIONS = frozenset({"notify", "dont_notify", "coalesce"})

ALL = "/_matrix/client/v3/pushrules/"
GLOBAL = f"{ALL}global/"
KIND = f"{GLOBAL}{{kind}}/"
RULE = f"{KIND}{{rule_id}}"


class SetRule(msgspec.Struct):
    """A user-defined rule."""

    actions: list[Action]
    conditions: list[dict[str, Any]] = msgspec.field(default_factory=list)
    pattern: str | None = None


class SetRuleQuery(msgspec.Struct):
    """The place of the rule among the user-defined ones."""

    before: str | None = None
    after: str | None = None


class SetEnabled(msgspec.Struct):
    enabled: bool


class SetActions(msgspec.Struct):
    actions: list[Action]


class PushRulesApi:
    def __init__(self, rules: PushRules) -> None:
        self._rules = rules

    def routes(self) -> list[Route]:
        enabled, actions = f"{RULE}/enabled", f"{RULE}/actions"
        return [
            Route("GET", ALL, self.get_push_rules),
            Route("GET", GLOBAL, self.get_push_rules_global),
            Route("GET", KIND, self.get_push_rules_of_kind),
            Route("GET", RULE, self.get_push_rule),
            Route("PUT", RULE, self.set_push_rule, limit="settings"),
            Route("DELETE", RULE, self.delete_push_rule, limit="settings"),
            Route("GET", enabled, self.is_push_rule_enabled),
            Route("PUT", enabled, self.set_push_rule_enabled, limit="settings"),
            Route("GET", actions, self.get_push_rule_actions),
            Route("PUT", actions, self.set_push_rule_actions, limit="settings"),
            *self._wrong_paths(),
        ]

    def _wrong_paths(self) -> list[Route]:
        """Routes of invalid paths: the error must not look like that of an old server."""
        scope = f"{ALL}{{scope}}"
        of_kind = f"{scope}/{{kind}}"
        of_rule, attribute = f"{of_kind}/{{rule_id}}", f"{RULE}/{{attribute}}"
        return [
            *(Route("GET", path, self.refuse_path) for path in (scope, of_kind, of_rule)),
            *(Route("PUT", path, self.refuse_path) for path in (ALL, scope, of_kind, of_rule)),
            Route("GET", attribute, self.refuse_path),
            Route("PUT", attribute, self.refuse_path),
        ]

    def refuse_path(
        self, scope: str = "global", kind: str = "", rule_id: str = "", attribute: str = ""
    ) -> None:
        """Raise `InvalidParam` with the error in a path."""
        if scope != "global":
            raise InvalidParam("The only scope of push rules is `global`")
        if attribute:
            raise InvalidParam(f"{kind} rule {rule_id!r}: a rule has `enabled` and `actions` only")
        raise InvalidParam("A rule has a kind and an id")

    async def get_push_rules(self, caller: Requester) -> dict[str, Any]:
        """All rules of the caller."""
        return (await self._rules.of(caller.user_id)).content_for(caller.user_id)

    async def get_push_rules_global(self, caller: Requester) -> Any:
        """All rules of the caller, which are global."""
        return (await self.get_push_rules(caller))["global"]

    async def get_push_rules_of_kind(self, caller: Requester, kind: str) -> Any:
        """All rules of a kind: no longer specified, but old clients request them."""
        rules = await self.get_push_rules_global(caller)
        if kind not in rules:
            raise InvalidParam(f"The kinds of push rules are {', '.join(rules)}")
        return rules[kind]

    async def get_push_rule(self, caller: Requester, kind: str, rule_id: str) -> PushRule:
        """One rule."""
        return render_rule(await self._rule(caller, kind, rule_id), caller.user_id)

    async def set_push_rule(
        self, caller: Requester, kind: str, rule_id: str, body: SetRule, query: SetRuleQuery
    ) -> None:
        """Add or replace a user-defined rule."""
        _check_kind_of_new(kind)
        _check_actions(body.actions)
        rule = PushRule(rule_id, default=False, enabled=True, actions=body.actions)
        if kind == "content":
            if body.pattern is None:
                raise MissingParam("A content rule needs a pattern")
            rule = msgspec.structs.replace(rule, pattern=body.pattern)
        elif kind in ("override", "underride"):
            _check_conditions(body.conditions)
            rule = msgspec.structs.replace(rule, conditions=body.conditions)
        await self._rules.put(caller.user_id, kind, rule, before=query.before, after=query.after)

    async def delete_push_rule(self, caller: Requester, kind: str, rule_id: str) -> None:
        """Delete a user-defined rule."""
        _check_kind(kind)
        await self._rules.delete(caller.user_id, kind, rule_id)

    async def is_push_rule_enabled(
        self, caller: Requester, kind: str, rule_id: str
    ) -> dict[str, bool]:
        """Whether a rule is enabled."""
        return {"enabled": (await self._rule(caller, kind, rule_id)).enabled}

    async def set_push_rule_enabled(
        self, caller: Requester, kind: str, rule_id: str, body: SetEnabled
    ) -> None:
        """Enable or disable a rule."""
        _check_kind(kind)
        await self._rules.set_enabled(caller.user_id, kind, rule_id, body.enabled)

    async def get_push_rule_actions(
        self, caller: Requester, kind: str, rule_id: str
    ) -> dict[str, list[Action]]:
        """The actions of a rule."""
        return {"actions": (await self._rule(caller, kind, rule_id)).actions}

    async def set_push_rule_actions(
        self, caller: Requester, kind: str, rule_id: str, body: SetActions
    ) -> None:
        """Set the actions of a rule."""
        _check_kind(kind)
        _check_actions(body.actions)
        await self._rules.set_actions(caller.user_id, kind, rule_id, body.actions)

    async def _rule(self, caller: Requester, kind: str, rule_id: str) -> PushRule:
        _check_kind(kind)
        return (await self._rules.of(caller.user_id)).get(kind, rule_id)


def _check_kind(kind: str) -> None:
    """Raise `NotFound` for an unknown kind, which has no rules."""
    if kind not in KINDS:
        raise NotFound(f"There is no such rule: the kinds of push rules are {', '.join(KINDS)}")


def _check_kind_of_new(kind: str) -> None:
    """Raise `InvalidParam` for a kind in which no rule can be created."""
    if kind not in OWN_KINDS:
        raise InvalidParam(f"Users have push rules of the kinds {', '.join(OWN_KINDS)}")


def _check_actions(actions: list[Action]) -> None:
    """Raise `BadJson` for an invalid action."""
    for action in actions:
        if isinstance(action, dict):
            is_valid = isinstance(action.get("set_tweak"), str)
        else:
            is_valid = action in ACTIONS or "." in action
        if not is_valid:
            raise BadJson("An action is a known name, or an object with set_tweak")


def _check_conditions(conditions: list[dict[str, Any]]) -> None:
    if not all(isinstance(condition.get("kind"), str) for condition in conditions):
        raise BadJson("A condition has a kind")
