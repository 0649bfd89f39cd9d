"""Application services, as their registrations describe them.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

from dataclasses import dataclass, field

from homeserver.protocol.appservices.namespaces import NO_NAMESPACES, NamespaceList


@dataclass(frozen=True, slots=True, eq=False)
class Appservice:
    """One application service, as its registration file describes it.

    `sender` is the user id of its own user. Without a `url` nothing is sent to it, unless it opens
    a WebSocket. `rate_limited` is about the users that it acts as; its own user has no limits.
    `receives_ephemeral` and `receives_encryption` say whether its transactions have typing,
    receipts and presence, and device lists and key counts (MSC3202).
    `may_import_history` permits it to insert old messages.
    """

    id: str
    url: str | None
    as_token: str = field(repr=False)
    hs_token: str = field(repr=False)
    sender: str
    server_name: str
    users: NamespaceList = NO_NAMESPACES
    aliases: NamespaceList = NO_NAMESPACES
    rooms: NamespaceList = NO_NAMESPACES
    protocols: tuple[str, ...] = ()
    rate_limited: bool = True
    receives_ephemeral: bool = False
    receives_encryption: bool = False
    may_import_history: bool = False

    def covers_user(self, user_id: str) -> bool:
        """Whether a local user is in one of its namespaces, or is its own user."""
        return user_id == self.sender or (self._is_local(user_id) and self.users.covers(user_id))

    def owns_user(self, user_id: str) -> bool:
        """Whether a local user is its own alone: exclusive to it, or its own user."""
        return user_id == self.sender or (
            self._is_local(user_id) and self.users.covers_exclusively(user_id)
        )

    def owns_alias(self, alias: str) -> bool:
        """Whether a local alias is exclusive to it."""
        return self._is_local(alias) and self.aliases.covers_exclusively(alias)

    def _is_local(self, name: str) -> bool:
        return name.partition(":")[2] == self.server_name
