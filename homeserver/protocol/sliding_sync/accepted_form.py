"""The form of sliding sync that the proposal was accepted with: everything is in the body.

Spec: MSC4186
"""

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.identifiers import is_valid_opaque_id
from homeserver.protocol.sliding_sync.deployed_form import room_list_filters
from homeserver.protocol.sliding_sync.extension_bodies import ExtensionBodies
from homeserver.protocol.sliding_sync.request import (
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


class StateElementBody(msgspec.Struct):
    type: str | None = None
    state_key: str | None = None


class RequiredStateBody(msgspec.Struct):
    include: list[StateElementBody] = []
    exclude: list[StateElementBody] = []
    lazy_members: bool = False


class FiltersBody(msgspec.Struct):
    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    spaces: list[str] | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] | None = None
    tags: list[str] | None = None
    not_tags: list[str] | None = None


class SubscriptionBody(msgspec.Struct):
    timeline_limit: int
    required_state: RequiredStateBody


class ListBody(SubscriptionBody):
    range: Range | None = None
    filters: FiltersBody | None = None


class AcceptedBody(msgspec.Struct):
    """What the body of a request asks for."""

    lists: dict[str, ListBody] | None = None
    room_subscriptions: dict[str, SubscriptionBody] | None = None
    extensions: ExtensionBodies | None = None

    def value(self, size: int) -> RequestBody:
        """The value of a body of `size` bytes. Raises `InvalidParam`."""
        lists = self.lists or {}
        subscriptions = self.room_subscriptions or {}
        for name in lists:
            if not is_valid_opaque_id(name):
                raise InvalidParam(f"{name!r} is not a valid name of a list")
        return RequestBody(
            {name: _list_config(name, body) for name, body in lists.items()},
            {room: _room_config(room, body) for room, body in subscriptions.items()},
            (self.extensions or ExtensionBodies()).configs(),
            size=size,
        )


def _list_config(name: str, body: ListBody) -> ListConfig:
    ranges = None if body.range is None else [check_range(name, body.range)]
    return ListConfig(_room_config(name, body), ranges, _filters(name, body.filters))


def _room_config(name: str, body: SubscriptionBody) -> RoomConfig:
    state = body.required_state
    check_count(name, [*state.include, *state.exclude], MAX_STATE_ELEMENTS)
    required = RequiredState(
        _elements(state.include), _elements(state.exclude), lazy_members=state.lazy_members
    )
    return RoomConfig(check_timeline_limit(name, body.timeline_limit), (required,))


def _elements(bodies: list[StateElementBody]) -> frozenset[StateElement]:
    return frozenset(StateElement(body.type, body.state_key) for body in bodies)


def _filters(name: str, body: FiltersBody | None) -> RoomListFilters:
    if body is None:
        return NO_FILTERS
    flags = {
        "is_dm": body.is_dm,
        "is_encrypted": body.is_encrypted,
        "is_invited": body.is_invited,
    }
    return room_list_filters(name, flags, body)
