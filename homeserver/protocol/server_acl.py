"""Server access lists: which servers a room lets take part.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name

_IP_LITERAL = re.compile(r"\[.*\]|\d{1,3}(\.\d{1,3}){3}")


def is_server_allowed(server_name: str, acl: Mapping[str, Any] | None) -> bool:
    """Whether the content of `m.room.server_acl`, or its absence, lets a server take part.

    Ports are not compared, and case makes no difference.
    """
    if acl is None:
        return True
    try:
        host = parse_server_name(server_name).host
    except InvalidIdentifier:
        return False
    if acl.get("allow_ip_literals") is False and _IP_LITERAL.fullmatch(host):
        return False
    if any(_matches(host, entry) for entry in _entries(acl, "deny")):
        return False
    return any(_matches(host, entry) for entry in _entries(acl, "allow"))


def _entries(acl: Mapping[str, Any], field: str) -> list[str]:
    entries = acl.get(field)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, str)]


def _matches(host: str, entry: str) -> bool:
    return _pattern(entry).fullmatch(host) is not None


@lru_cache(maxsize=2_000)
def _pattern(entry: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(character, re.escape(character)) for character in entry)
    return re.compile(text, re.IGNORECASE | re.DOTALL)
