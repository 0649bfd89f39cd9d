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
    RoomListFilters,
    SlidingSyncRequest,
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
    """The body of a request."""

    conn_id: str | None = None
    lists: dict[str, DeployedListBody] | None = None
    room_subscriptions: dict[str, DeployedRoomBody] | None = None
    extensions: ExtensionBodies | None = None

    def request(self, user_id: str, pos: str | None, timeout: int) -> SlidingSyncRequest:
        """The value, for a user. Raises `InvalidParam`."""
        lists = self.lists or {}
        subscriptions = self.room_subscriptions or {}
        return SlidingSyncRequest(
            self.conn_id or "",
            pos or None,
            timeout,
            {name: _list_config(name, body, user_id) for name, body in lists.items()},
            {room: room_config(room, body, user_id) for room, body in subscriptions.items()},
            (self.extensions or ExtensionBodies()).configs(),
            has_counts=True,
        )


def room_config(name: str, body: DeployedRoomBody, user_id: str) -> RoomConfig:
    """The room config of a list or a room with this name. Raises `InvalidParam`."""
    check_count(name, body.required_state, MAX_STATE_ELEMENTS)
    limit = check_timeline_limit(name, body.timeline_limit)
    lazy = (MEMBER, LAZY) in body.required_state
    include = frozenset(
        _element(event_type, state_key, user_id)
        for event_type, state_key in body.required_state
        if state_key != LAZY
    )
    return RoomConfig(limit, (RequiredState(include, lazy_members=lazy),))


def _list_config(name: str, body: DeployedListBody, user_id: str) -> ListConfig:
    ranges = body.ranges
    if ranges is None and body.range is not None:
        ranges = [body.range]
    if ranges is not None:
        check_count(name, ranges, MAX_RANGES)
        ranges = [check_range(name, ends) for ends in ranges]
    return ListConfig(room_config(name, body, user_id), ranges, _filters(name, body.filters))


def _element(event_type: str, state_key: str, user_id: str) -> StateElement:
    key: str | None = user_id if state_key == ME else state_key
    return StateElement(
        None if event_type == ANY else event_type, None if state_key == ANY else key
    )


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
