"""What a room that replaces another takes over from it: pure functions over state contents.

Carried are the types that the text recommends, the canonical alias, as the aliases move too, the
children of a space, which are what a space is, and bans. Nothing is carried whose meaning depends
on who sent it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from homeserver.protocol.event_types import (
    AVATAR,
    CANONICAL_ALIAS,
    ENCRYPTION,
    GUEST_ACCESS,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    NAME,
    SERVER_ACL,
    TOMBSTONE,
    TOPIC,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.power_levels import PowerLevels, parse_level, room_creators
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing.canonical_json import NotCanonical, check_canonical

CARRIED_TYPES: Final = (
    SERVER_ACL,
    ENCRYPTION,
    NAME,
    AVATAR,
    TOPIC,
    GUEST_ACCESS,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    CANONICAL_ALIAS,
)

_LEAST: Final = 50  # what nobody below may send in a room that was replaced
_TOMBSTONE_LEVEL: Final = 150  # in room versions whose creators stand above all


def may_carry(version: RoomVersion, content: Mapping[str, Any]) -> bool:
    """Whether a content that some old room version let through is valid in another one."""
    if version.strict_canonical_json:
        try:
            check_canonical(content)
        except NotCanonical:
            return False
    return True


def carried_create_content(
    version: RoomVersion, old_create: Event, creator: str, additional_creators: Iterable[str]
) -> dict[str, Any]:
    """Content of the new create event; the caller completes its `predecessor`."""
    content: dict[str, Any] = {
        "room_version": version.identifier,
        "predecessor": {"room_id": old_create.room_id},
    }
    for name in ("type", "m.federate"):
        if name in old_create.content:
            content[name] = old_create.content[name]
    if version.creator_in_content:
        content["creator"] = creator
    if version.creators_outrank_everyone and (others := list(additional_creators)):
        content["additional_creators"] = others
    return content


def carried_power_levels(
    version: RoomVersion,
    old_create: Event,
    content: Mapping[str, Any],
    creators: Collection[str],
) -> dict[str, Any]:
    """The power levels of a room as one of another version can have them.

    Levels become integers where the version wants that; what is no user has none. `creators` of the
    new room are left out where they stand above all. Those of an old room where they did are listed
    with the level of the highest right where they do not any more.
    """
    levels = dict(content)
    if version.integer_power_levels:
        levels = _with_integers(old_create.version, content)
    users = _object(levels.get("users"))
    users = {user_id: level for user_id, level in users.items() if is_valid_user_id(user_id)}
    events = _object(levels.get("events"))
    if version.creators_outrank_everyone:
        for user_id in creators:
            users.pop(user_id, None)
        state_default = levels.get("state_default", 50)
        if events.get(TOMBSTONE, state_default) <= state_default:
            events[TOMBSTONE] = max(_TOMBSTONE_LEVEL, state_default + 1)
        levels["events"] = events
    elif old_create.version.creators_outrank_everyone:
        highest = max([100, *events.values()])
        for user_id in room_creators(old_create):
            users[user_id] = highest
    if users or "users" in levels:
        levels["users"] = users
    return levels


def restricted_power_levels(levels: PowerLevels, content: Mapping[str, Any]) -> dict[str, Any]:
    """The power levels of a room that was replaced: ordinary members neither send nor invite."""
    least = max(_LEAST, levels.users_default + 1)
    return {
        **content,
        "events_default": max(levels.events_default, least),
        "invite": max(levels.invite, least),
    }


def _object(value: object) -> dict[str, Any]:
    """A copy of what should be an object, which old room versions do not see to."""
    return dict(value) if isinstance(value, Mapping) else {}


def _with_integers(version: RoomVersion, content: Mapping[str, Any]) -> dict[str, Any]:
    """The same levels as integers; what is no level is left out."""
    levels: dict[str, Any] = {}
    for name, value in content.items():
        if name in ("events", "users", "notifications"):
            if isinstance(value, Mapping):
                levels[name] = _with_integers_in(version, value)
        elif (level := parse_level(version, value)) is not None:
            levels[name] = level
    return levels


def _with_integers_in(version: RoomVersion, values: Mapping[str, Any]) -> dict[str, int]:
    parsed = {name: parse_level(version, value) for name, value in values.items()}
    return {name: level for name, level in parsed.items() if level is not None}
