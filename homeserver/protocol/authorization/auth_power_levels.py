"""Authorisation of `m.room.power_levels` events: no user grants more power than they have.

Rule numbers are those of room version 12, which also set the order of the code.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.rule_broken import rule_broken
from homeserver.protocol.event_types import POWER_LEVELS
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.power_levels import DEFAULT_LEVELS, parse_level, room_creators
from homeserver.protocol.room_versions import RoomVersion


def check_power_levels(event: Event, state: AuthState) -> None:
    """Rule 10: the sender changes the power levels. Raises `RuleBroken`."""
    version = event.version
    if version.integer_power_levels:
        _check_integers(version, event.content)
    if version.float_power_levels:
        _check_finite(version, event.content)
    _check_users(version, event.content)
    if version.creators_outrank_everyone:
        _check_creators_unlisted(event, state)

    # 10.5
    previous = state.get(POWER_LEVELS)
    if previous is None:
        return

    _check_levels(event, previous, state)
    for table in _tables(version):
        _check_table(event, previous, table, state)
    _check_user_changes(event, previous, state)


def _check_integers(version: RoomVersion, content: Mapping[str, Any]) -> None:
    """Rules 10.1 and 10.2: levels that are given are integers."""
    for name in DEFAULT_LEVELS:
        if name in content and type(content[name]) is not int:
            raise rule_broken(version, "10.1", f"{name} is not an integer")

    for table in ("events", "notifications"):
        levels = content.get(table, {})
        if not isinstance(levels, Mapping) or any(type(n) is not int for n in levels.values()):
            raise rule_broken(version, "10.2", f"{table} is not an object of integers")


def _check_finite(version: RoomVersion, content: Mapping[str, Any]) -> None:
    """If floats are levels, one that no double can represent makes the event invalid.

    Spec: https://spec.matrix.org/v1.19/rooms/v5/#deprecated-event-content-schemas
    """
    nested = [content.get(table) for table in ("events", "notifications", "users")]
    levels = [content.get(name) for name in DEFAULT_LEVELS]
    levels += [n for table in nested if isinstance(table, Mapping) for n in table.values()]
    if any(isinstance(level, float) and not math.isfinite(level) for level in levels):
        raise rule_broken(version, "10.3", "a level is not a finite number")


def _check_users(version: RoomVersion, content: Mapping[str, Any]) -> None:
    """Rule 10.3: `users` maps user ids to levels. It may be absent, as the schema allows."""
    users = content.get("users", {})
    if not isinstance(users, Mapping):
        raise rule_broken(version, "10.3", "users is not an object")
    for user_id, level in users.items():
        if not is_valid_user_id(user_id):
            raise rule_broken(version, "10.3", f"{user_id!r} is not a user id")
        if parse_level(version, level) is None:
            raise rule_broken(version, "10.3", f"the level of {user_id} is not an integer")


def _check_creators_unlisted(event: Event, state: AuthState) -> None:
    """Rule 10.4: the power of creators is infinite and cannot be given a number."""
    listed = room_creators(state.create) & event.content.get("users", {}).keys()
    if listed:
        raise rule_broken(event.version, "10.4", f"{min(listed)} is a creator of the room")


def _check_levels(event: Event, previous: Event, state: AuthState) -> None:
    """Rule 10.6: the sender has the power that an altered level had and will have."""
    own = state.power_levels.of(event.sender)
    for name, old, new in _alterations(event, previous.content, event.content, DEFAULT_LEVELS):
        if old is not None and old > own:
            raise rule_broken(event.version, "10.6.1", f"{name} is {old}, the sender has {own}")
        if new is not None and new > own:
            raise rule_broken(event.version, "10.6.2", f"{name} would be {new}, sender has {own}")


def _check_table(event: Event, previous: Event, table: str, state: AuthState) -> None:
    """Rules 10.7 and 10.8: the same for each event type and each kind of notification."""
    own = state.power_levels.of(event.sender)
    changes = _alterations(event, previous.content.get(table), event.content.get(table))
    for name, old, new in changes:
        if old is not None and old > own:
            raise rule_broken(event.version, "10.7.1", f"{name} is {old}, the sender has {own}")
        if new is not None and new > own:
            raise rule_broken(event.version, "10.8.1", f"{name} would be {new}, sender has {own}")


def _check_user_changes(event: Event, previous: Event, state: AuthState) -> None:
    """Rules 10.9 and 10.10: no user is demoted by an equal, or promoted above the sender."""
    own = state.power_levels.of(event.sender)
    changes = _alterations(event, previous.content.get("users"), event.content.get("users"))
    for user_id, old, new in changes:
        if old is not None and old >= own and user_id != event.sender:
            raise rule_broken(event.version, "10.9.1", f"{user_id} has {old}, the sender has {own}")
        if new is not None and new > own:
            raise rule_broken(event.version, "10.10.1", f"{user_id} would outrank the sender")


def _tables(version: RoomVersion) -> tuple[str, ...]:
    if version.limit_notifications_power_levels:
        return ("events", "notifications")
    return ("events",)


def _alterations(
    event: Event, old: object, new: object, names: Iterable[str] | None = None
) -> Iterator[tuple[str, int | None, int | None]]:
    """Each level that differs, as (name, old, new), of all names or of some; `None` if not given.

    A level that is equal but written differently, such as `"50"` for `50`, is not altered.
    """
    before = old if isinstance(old, Mapping) else {}
    after = new if isinstance(new, Mapping) else {}
    for name in sorted(before.keys() | after.keys()) if names is None else names:
        old_level = parse_level(event.version, before.get(name))
        new_level = parse_level(event.version, after.get(name))
        if old_level != new_level:
            yield name, old_level, new_level
