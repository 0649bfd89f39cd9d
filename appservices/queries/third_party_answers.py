"""What application services say of their networks; what does not have its shape is dropped.

Members that are missing are tolerated where clients can do without them, since bridges leave many
out; a member of a wrong type is not. Members that the specification does not know are kept: there
are clients for some of them.

Spec: https://spec.matrix.org/v1.19/application-service-api/#third-party-networks
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import defstruct

from homeserver.protocol.identifiers import InvalidIdentifier, is_valid_user_id, parse_room_alias
from homeserver.rooms.discovery.network_lists import instance_id

FieldType = defstruct("FieldType", [("regexp", str), ("placeholder", str)])
ThirdPartyInstance = defstruct(
    "ThirdPartyInstance",
    [("desc", str, ""), ("icon", str, ""), ("fields", dict[str, Any], {}), ("network_id", str, "")],
)
ThirdPartyProtocol = defstruct(  # without its instances
    "ThirdPartyProtocol",
    [
        ("user_fields", list[str], []),
        ("location_fields", list[str], []),
        ("icon", str, ""),
        ("field_types", dict[str, FieldType], {}),  # type: ignore[valid-type]
    ],
)
ThirdPartyLocation = defstruct(
    "ThirdPartyLocation", [("alias", str), ("protocol", str), ("fields", dict[str, Any])]
)
ThirdPartyUser = defstruct(
    "ThirdPartyUser", [("userid", str), ("protocol", str), ("fields", dict[str, Any])]
)


def parse_protocol(body: bytes, appservice_id: str) -> dict[str, Any] | None:
    """A protocol, as clients see it; `None` for garbage.

    An instance with a network gets the id by which the room directory knows it.
    """
    content = _decoded(body)
    if not isinstance(content, dict) or not _fits(content, ThirdPartyProtocol):
        return None
    instances = content.get("instances", [])
    if not isinstance(instances, list):
        return None
    kept = [dict(each) for each in instances if _fits(each, ThirdPartyInstance)]
    for instance in kept:
        instance.pop("instance_id", None)
        if network := instance.get("network_id"):
            instance["instance_id"] = instance_id(appservice_id, network)
    return {**content, "instances": kept}


def merge_protocols(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One protocol of several application services: the first one's, with all instances."""
    return {**found[0], "instances": [each for one in found for each in one["instances"]]}


def parse_locations(body: bytes) -> list[Any]:
    """The locations that are valid."""
    return [
        each for each in _list(body) if _fits(each, ThirdPartyLocation) and _is_alias(each["alias"])
    ]


def parse_users(body: bytes) -> list[Any]:
    """The users that are valid."""
    return [
        each
        for each in _list(body)
        if _fits(each, ThirdPartyUser) and is_valid_user_id(each["userid"])
    ]


def _list(body: bytes) -> list[Any]:
    content = _decoded(body)
    return content if isinstance(content, list) else []


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _fits(content: Any, shape: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert(content, shape)
    except msgspec.ValidationError:
        return False
    return True


def _is_alias(alias: str) -> bool:
    try:
        parse_room_alias(alias)
    except InvalidIdentifier:
        return False
    return True
