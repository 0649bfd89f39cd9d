"""The form of sliding sync that deployed clients speak, under its unstable prefix.

It is that of the accepted proposal before its last changes: `pos`, `timeout` and `set_presence` are
in the URL, a list has several `ranges`, and `required_state` is a list of pairs in which `*`
matches everything, `$ME` is the user, and `$LAZY` asks for lazy loading of members.

A `txn_id` is ignored: to clients that know the proposal before, one in a response says that the
server remembers their parameters, which this one does not.

Spec: MSC4186, its appendix
"""

from typing import Any

import msgspec

from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.sliding_sync.extension_bodies import ExtensionBodies
from homeserver.protocol.sliding_sync.request import (
    MAX_FILTER_ITEMS,
    MAX_RANGES,
    MAX_STATE_ELEMENTS,
    NO_FILTERS,
    ListConfig,
    Range,
    RequestBody,
    RoomListFilters,
    check_count,
    check_range,
    check_timeline_limit,
)
from homeserver.protocol.sliding_sync.room_config import RequiredState, RoomConfig, StateElement

ANY, LAZY, ME = "*", "$LAZY", "$ME"


class DeployedFiltersBody(msgspec.Struct):
    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    spaces: list[str] | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] | None = None
    tags: list[str] | None = None
    not_tags: list[str] | None = None


class DeployedRoomBody(msgspec.Struct):
    """The config of a subscription."""

    timeline_limit: int = 0
    required_state: list[tuple[str, str]] = []


class DeployedListBody(DeployedRoomBody):
    ranges: list[Range] | None = None
    range: Range | None = None
    filters: DeployedFiltersBody | None = None


class DeployedBody(msgspec.Struct):
    """What the body of a request asks for."""

    lists: dict[str, DeployedListBody] | None = None
    room_subscriptions: dict[str, DeployedRoomBody] | None = None
    extensions: ExtensionBodies | None = None

    def value(self, size: int) -> RequestBody:
        """The value of a body of `size` bytes. Raises `InvalidParam`."""
        lists = self.lists or {}
        subscriptions = self.room_subscriptions or {}
        return RequestBody(
            {name: _list_config(name, body) for name, body in lists.items()},
            {room: _room_config(room, body) for room, body in subscriptions.items()},
            (self.extensions or ExtensionBodies()).configs(),
            has_counts=True,
            size=size,
        )


def _room_config(name: str, body: DeployedRoomBody) -> RoomConfig:
    check_count(name, body.required_state, MAX_STATE_ELEMENTS)
    limit = check_timeline_limit(name, body.timeline_limit)
    include, own_types = set(), set()
    for event_type, state_key in body.required_state:
        if state_key == ME:
            own_types.add(_any(event_type))
        elif state_key != LAZY:
            include.add(StateElement(_any(event_type), _any(state_key)))
    lazy = (MEMBER, LAZY) in body.required_state
    state = RequiredState(frozenset(include), lazy_members=lazy, own_types=frozenset(own_types))
    return RoomConfig(limit, (state,))


def _any(name: str) -> str | None:
    """A type or state key; `None` for all."""
    return None if name == ANY else name


def _list_config(name: str, body: DeployedListBody) -> ListConfig:
    ranges = body.ranges
    if ranges is None and body.range is not None:
        ranges = [body.range]
    if ranges is not None:
        check_count(name, ranges, MAX_RANGES)
        ranges = [check_range(name, ends) for ends in ranges]
    return ListConfig(_room_config(name, body), ranges, _filters(name, body.filters))


def _filters(name: str, body: DeployedFiltersBody | None) -> RoomListFilters:
    if body is None:
        return NO_FILTERS
    return room_list_filters(
        name,
        {
            "is_dm": body.is_dm,
            "is_encrypted": body.is_encrypted,
            "is_invited": body.is_invite,
        },
        body,
    )


def room_list_filters(name: str, flags: dict[str, bool | None], body: Any) -> RoomListFilters:
    """Filters with these flags, and the lists of names of a body. Raises `InvalidParam`."""
    names: dict[str, frozenset[Any] | None] = {}
    for member in ("spaces", "room_types", "not_room_types", "tags", "not_tags"):
        items = getattr(body, member)
        check_count(name, items or (), MAX_FILTER_ITEMS)
        names[member] = None if items is None else frozenset(items)
    return RoomListFilters(
        flags["is_dm"],
        flags["is_encrypted"],
        flags["is_invited"],
        names["spaces"],
        names["room_types"],
        names["not_room_types"] or frozenset(),
        names["tags"],
        names["not_tags"] or frozenset(),
    )
