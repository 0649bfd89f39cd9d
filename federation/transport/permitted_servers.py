"""With which servers this one talks at all, in either direction: the lists of the configuration.

An entry is a server name without its port, in which `*` stands for any characters and `?` for one,
as in the server access lists of rooms. Case makes no difference.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
"""

from collections.abc import Iterable

from homeserver.protocol.glob import GlobSet
from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name
from homeserver.protocol.server_acl import MAX_HOST


class PermittedServers:
    """`deny` wins over `allow`; without any `allow`, whoever is not denied is permitted."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        allowed = [entry.lower() for entry in allow]
        self._allow = GlobSet(allowed, MAX_HOST) if allowed else None
        self._deny = GlobSet((entry.lower() for entry in deny), MAX_HOST)

    def permits(self, server_name: str) -> bool:
        """Whether this is a valid name of a server that we talk with."""
        try:
            host = parse_server_name(server_name).host.lower()
        except InvalidIdentifier:
            return False
        if self._deny.matches(host):
            return False
        return self._allow is None or self._allow.matches(host)
