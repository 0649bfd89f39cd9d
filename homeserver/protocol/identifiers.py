"""Identifiers: user ids, room ids, aliases, event ids, server names, and the ids of keys.

`parse_…` turns untrusted text into its parts or raises `InvalidIdentifier`; `is_valid_…` returns a
bool for the same rules. Identifiers from other servers are checked by the wide, historical grammar,
because such ids are in use; only new accounts must match the narrow one (`check_localpart`).

No identifier of a room, event, user or alias exceeds 255 bytes; In events of old room versions some
do, because other servers count codepoints: `RoomVersion.limits_ids_by_codepoints`.

Spec: https://spec.matrix.org/v1.19/appendices/#identifier-grammar
"""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

MAX_ID_BYTES = 255

_SERVER = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
_LOCALPART = r"[^:\x00\ud800-\udfff]*"

_SERVER_NAME = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::([0-9]{1,5}))?")
_USER_ID = re.compile(f"@({_LOCALPART}):({_SERVER})")
_ROOM_ALIAS = re.compile(f"#({_LOCALPART}):({_SERVER})")
_ROOM_ID = re.compile(f"!({_LOCALPART})(?::({_SERVER}))?")
_EVENT_ID = re.compile(rf"\$({_LOCALPART})(?::({_SERVER}))?")
_DOTTED_QUAD = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_NEW_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
_COMPLIANT_LOCALPART = re.compile(r"[\x21-\x7e]+")
_KEY_VERSION = re.compile(r"[A-Za-z0-9_]+")
_OPAQUE_ID = re.compile(r"[0-9A-Za-z._~-]{1,255}")
_NAMESPACED_ID = re.compile(r"[a-z][a-z0-9._-]{0,254}")


class InvalidIdentifier(ValueError):
    """The value is not an identifier of the expected kind."""


class UserId(NamedTuple):
    """The parts of `@localpart:server_name`."""

    localpart: str
    server_name: str


class RoomAlias(NamedTuple):
    """The parts of `#localpart:server_name`."""

    localpart: str
    server_name: str


class ServerName(NamedTuple):
    """The parts of a server name. An IPv6 address is without its brackets."""

    host: str
    port: int | None
    is_address: bool
    """The host is an IP address, not a name."""


def parse_user_id(text: str) -> UserId:
    """The parts of a user id, whose localpart may be historical: anything but `:` and NUL.

    Spec: https://spec.matrix.org/v1.19/appendices/#historical-user-ids
    """
    match = _USER_ID.fullmatch(text)
    if match is None or not fits_id_limit(text) or not _is_host_possible(match[2]):
        raise InvalidIdentifier("not a user id")
    return UserId(match[1], match[2])


def is_valid_user_id(text: str, *, in_codepoints: bool = False) -> bool:
    """Whether `parse_user_id` accepts `text`. The limit may be one of codepoints."""
    match = _USER_ID.fullmatch(text)
    if match is None or not fits_id_limit(text, in_codepoints=in_codepoints):
        return False
    return _is_host_possible(match[2])


def is_compliant_user_id(text: str) -> bool:
    """Whether `text` is a valid user id that may also be shown to clients outside of events.

    Its localpart is not empty and has only printable ASCII characters.
    """
    match = _USER_ID.fullmatch(text)
    return (
        match is not None
        and _COMPLIANT_LOCALPART.fullmatch(match[1]) is not None
        and fits_id_limit(text)
        and _is_host_possible(match[2])
    )


def check_localpart(localpart: str, server_name: str) -> None:
    """Check the localpart of a new account. Raises `InvalidIdentifier` with a message for its
    owner.

    Spec: https://spec.matrix.org/v1.19/appendices/#user-identifiers
    """
    if not localpart:
        raise InvalidIdentifier("User ID must not be empty")
    if _NEW_LOCALPART.fullmatch(localpart) is None:
        raise InvalidIdentifier("User ID may only contain the characters a-z, 0-9, or '._=-/+'")
    if not fits_id_limit(f"@{localpart}:{server_name}"):
        raise InvalidIdentifier(f"User ID must not be longer than {MAX_ID_BYTES} bytes")


def check_appservice_localpart(localpart: str, server_name: str) -> None:
    """Check the localpart of a new account of an application service. Raises `InvalidIdentifier`.

    Bridges have long named users after those of other networks, capital letters included, so this
    is the historical grammar.

    Spec: https://spec.matrix.org/v1.19/appendices/#historical-user-ids
    """
    if not is_compliant_user_id(f"@{localpart}:{server_name}"):
        raise InvalidIdentifier(
            f"User ID must be printable ASCII without ':' and not longer than {MAX_ID_BYTES} bytes"
        )


def parse_room_alias(text: str) -> RoomAlias:
    """The parts of a room alias.

    Spec: https://spec.matrix.org/v1.19/appendices/#room-aliases
    """
    match = _ROOM_ALIAS.fullmatch(text)
    if match is None or not fits_id_limit(text) or not _is_host_possible(match[2]):
        raise InvalidIdentifier("not a room alias")
    return RoomAlias(match[1], match[2])


def is_valid_room_id(text: str, *, in_codepoints: bool = False) -> bool:
    """Whether `text` is a room id of any room version: with a domain, or without.

    Spec: https://spec.matrix.org/v1.19/appendices/#room-ids
    """
    return _is_opaque_with_domain(_ROOM_ID, text, in_codepoints)


def is_valid_event_id(text: str, *, in_codepoints: bool = False) -> bool:
    """Whether `text` is an event id of any room version: with a domain, or without.

    Spec: https://spec.matrix.org/v1.19/appendices/#event-ids
    """
    return _is_opaque_with_domain(_EVENT_ID, text, in_codepoints)


def server_name_of(identifier: str) -> str:
    """The domain of an identifier that has one. Raises `InvalidIdentifier`.

    The domain is not checked: use it on identifiers that are known to be valid.
    """
    domain = identifier.partition(":")[2]
    if not domain:
        raise InvalidIdentifier("identifier without a domain")
    return domain


def creating_server_hint(room_id: str) -> str | None:
    """The server that created a room, if the room id names it.

    That server need not be in the room and has no special rights there: it is the last one to try
    when no server in the room is known.

    Spec: https://spec.matrix.org/v1.19/appendices/#room-ids
    """
    domain = room_id.partition(":")[2]
    return domain if is_valid_server_name(domain) else None


def parse_server_name(text: str) -> ServerName:
    """The parts of a server name. Raises `InvalidIdentifier`.

    Spec: https://spec.matrix.org/v1.19/appendices/#server-name
    """
    match = _SERVER_NAME.fullmatch(text)
    if match is None:
        raise InvalidIdentifier("not a server name")
    host, port = match[1], match[2]
    if not _is_host_possible(host):
        raise InvalidIdentifier("not an IP address")
    is_address = host[0] == "[" or _DOTTED_QUAD.fullmatch(host) is not None
    return ServerName(host.strip("[]"), int(port) if port else None, is_address)


def is_valid_server_name(text: str) -> bool:
    """Whether `parse_server_name` accepts `text`."""
    return _SERVER_NAME.fullmatch(text) is not None and _is_host_possible(text)


def fits_id_limit(text: str, *, in_codepoints: bool = False) -> bool:
    """Whether `text` has at most 255 bytes of UTF-8, or 255 codepoints."""
    if in_codepoints:
        return len(text) <= MAX_ID_BYTES
    length = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return length <= MAX_ID_BYTES


def is_valid_key_version(text: str) -> bool:
    """Whether `text` can be the part of a server's signing key id after the colon."""
    return _KEY_VERSION.fullmatch(text) is not None


def is_valid_opaque_id(text: str) -> bool:
    """Whether `text` has 1 to 255 of the characters that a URL need not escape.

    Spec: https://spec.matrix.org/v1.19/appendices/#opaque-identifiers
    """
    return _OPAQUE_ID.fullmatch(text) is not None


def is_valid_namespaced_id(text: str) -> bool:
    """Whether `text` has 1 to 255 characters such as `m.direct` or `com.example.thing`.

    Spec: https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
    """
    return _NAMESPACED_ID.fullmatch(text) is not None


def _is_opaque_with_domain(pattern: re.Pattern[str], text: str, in_codepoints: bool) -> bool:
    match = pattern.fullmatch(text)
    if match is None or not fits_id_limit(text, in_codepoints=in_codepoints):
        return False
    domain = match[2]
    return domain is None or _is_host_possible(domain)


def _is_host_possible(server_name: str) -> bool:
    """Whether a host that looks like an address is one; the grammar allows impossible addresses."""
    first = server_name[0]
    if first == "[":
        return _is_ipv6(server_name[1 : server_name.index("]")])
    if first.isdigit():
        host = server_name.partition(":")[0]
        return _DOTTED_QUAD.fullmatch(host) is None or all(
            int(number) <= 255 for number in host.split(".")
        )
    return True


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
