"""Server ACLs: the servers that may take part in a room.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomserver_acl
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from homeserver.protocol.glob import GlobSet
from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name

_IP_LITERAL = re.compile(r".*:.*|\d{1,3}(\.\d{1,3}){3}")  # an IPv6 address is without its brackets
MAX_HOST: Final = 255
"""The length of the longest host name, in characters; entries for longer ones match none."""


class ServerAcl:
    """The content of an `m.room.server_acl` event, compiled once to check many servers.

    An event has space for ten thousand entries. A check takes microseconds all the same, so no
    content that a moderator writes slows the room down.
    """

    __slots__ = ("_allow", "_allow_ip_literals", "_deny")

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._allow_ip_literals = content.get("allow_ip_literals") is not False
        self._deny = _hosts(content.get("deny"))
        self._allow = _hosts(content.get("allow"))

    def is_allowed(self, server_name: str) -> bool:
        """Whether a server may take part. Ports are not compared, and case is ignored."""
        try:
            host = parse_server_name(server_name).host
        except InvalidIdentifier:
            return False
        if not self._allow_ip_literals and _IP_LITERAL.fullmatch(host):
            return False
        host = host.lower()
        return not self._deny.matches(host) and self._allow.matches(host)


def fault_of_acl(content: Mapping[str, Any]) -> str | None:
    """The error in an ACL that a client wants to set; `None` if there is none.

    By the specification, an ACL without `allow` denies all servers, and an entry of the wrong type
    is ignored. No moderator means that, so the client gets an error. An `allow_ip_literals` that is
    not a boolean counts as true by the specification, and denies no server.
    """
    if "allow" not in content:
        return "allow is missing, which would let no server take part"
    for field in ("allow", "deny"):
        entries = content.get(field, [])
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            return f"{field} is not a list of strings"
    return None


def keeps_itself_out(server_name: str, acl: Mapping[str, Any]) -> bool:
    """Whether an ACL that a local user wants to set would deny their own server.

    Always false for a server at a loopback address: it shares the address with all others that it
    can reach, only their ports differ, and ACLs ignore ports.
    """
    return not is_server_allowed(server_name, acl) and not _is_at_loopback(server_name)


def is_server_allowed(server_name: str, acl: Mapping[str, Any] | None) -> bool:
    """Whether the content of `m.room.server_acl`, or its absence, allows a server to take part."""
    return acl is None or ServerAcl(acl).is_allowed(server_name)


def _is_at_loopback(server_name: str) -> bool:
    try:
        return ip_address(parse_server_name(server_name).host.strip("[]")).is_loopback
    except ValueError:
        return False


def _hosts(entries: object) -> GlobSet:
    given = entries if isinstance(entries, list) else ()
    # Host names are ASCII, so other entries match no server.
    lower = (entry.lower() for entry in given if isinstance(entry, str))
    return GlobSet((entry for entry in lower if entry.isascii()), MAX_HOST)
