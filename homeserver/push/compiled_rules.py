"""The compiled push rules of users. Users with equal rules, as most have, share one object."""

from collections.abc import Sequence
from typing import Any

from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import PUSH_RULES
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.rules import PushRules

MAX_USERS = 50_000
MAX_RULE_SETS = 5_000


class UserRules:
    """The compiled rules of users. `apply` is to be subscribed to the log."""

    def __init__(self, rules: PushRules) -> None:
        self._rules = rules
        self._users: LruCache[str, CompiledRules] = LruCache("push_rules", MAX_USERS)
        self._compiled: LruCache[bytes, CompiledRules] = LruCache("push_rule_sets", MAX_RULE_SETS)

    def find(self, user_id: str) -> CompiledRules | None:
        """The rules of a user, if they are in memory."""
        return self._users.peek(user_id)

    async def of(self, user_id: str) -> CompiledRules:
        """The rules of a user. Equal rules of different users are the same object."""
        found = self._users.get(user_id)
        if found is not None:
            return found
        rule_set = await self._rules.of(user_id)
        fingerprint = rule_set.fingerprint()
        compiled = self._compiled.get(fingerprint)
        if compiled is None:
            compiled = self._compiled.put(fingerprint, CompiledRules(rule_set))
        return self._users.put(user_id, compiled)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: changed rules are compiled again."""
        for entry in entries:
            if isinstance(entry, AccountDataChanged) and entry.type == PUSH_RULES:
                self._users.pop(entry.user_id)
