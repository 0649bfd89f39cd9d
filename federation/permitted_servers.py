"""With which servers this one talks at all, in either direction: the lists of the configuration.

An entry is a server name without its port, in which `*` stands for any characters and `?` for one,
as in the server access lists of rooms. Case makes no difference.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
"""

import re
from collections.abc import Iterable

from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name


class PermittedServers:
    """`deny` wins over `allow`; without any `allow`, whoever is not denied is permitted."""

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        self._allow = [_pattern(entry) for entry in allow]
        self._deny = [_pattern(entry) for entry in deny]

    def permits(self, server_name: str) -> bool:
        """Whether this is a valid name of a server that we talk with."""
        try:
            host = parse_server_name(server_name).host
        except InvalidIdentifier:
            return False
        if any(pattern.fullmatch(host) for pattern in self._deny):
            return False
        return not self._allow or any(pattern.fullmatch(host) for pattern in self._allow)


def _pattern(entry: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(character, re.escape(character)) for character in entry)
    return re.compile(text, re.IGNORECASE)
