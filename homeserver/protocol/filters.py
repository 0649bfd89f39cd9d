"""Filters: the clients' choices of the events that they receive.

A filter is parsed once into immutable structs that carry the names of the specification, and then
applied to each event. What a list excludes (`not_…`) stays excluded even if another includes it.

The caller must apply two parts of a filter: `limit`, and lazy loading of members.

Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from homeserver.protocol.errors import BadJson
from homeserver.protocol.glob import GlobSet
from homeserver.protocol.property_paths import split_path
from homeserver.protocol.proposals.unstable_names import UNSTABLE_PROFILE_FIELDS

UserIdText = Annotated[str, msgspec.Meta(pattern="^@")]
RoomIdText = Annotated[str, msgspec.Meta(pattern="^!")]
MAX_EVENT_TYPE = 255  # characters; patterns of longer types match nothing
MAX_TYPE_PATTERNS = 100  # with `*`, in one list

Limit = Annotated[int, msgspec.Meta(ge=0)]  # not in the specification, but clients do send 0


class _TypesAndSenders(msgspec.Struct, frozen=True, dict=True):
    """The common fields of all event filters. A list that is `None` matches everything."""

    limit: Limit | None = None
    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    senders: tuple[UserIdText, ...] | None = None
    not_senders: tuple[UserIdText, ...] = ()

    def __post_init__(self) -> None:
        for patterns in (self.types or (), self.not_types):
            if sum("*" in pattern for pattern in patterns) > MAX_TYPE_PATTERNS:
                raise ValueError(f"a list has at most {MAX_TYPE_PATTERNS} patterns with `*`")

    def limit_or(self, default: int, maximum: int) -> int:
        """The number of events to return: the requested one, or the default, within bounds."""
        return min(default if self.limit is None else self.limit, maximum)

    def _passes(self, event_type: str, sender: str | None) -> bool:
        return (
            (self.types is None or self._types.matches(event_type))
            and self._senders.has(sender)
            and not self._not_types.matches(event_type)
        )

    @cached_property
    def _senders(self) -> "_Listed":
        return _Listed(self.senders, self.not_senders)

    @cached_property
    def _types(self) -> GlobSet:
        return _type_patterns(self.types or ())

    @cached_property
    def _not_types(self) -> GlobSet:
        return _type_patterns(self.not_types)

    @cached_property
    def _names_nothing(self) -> bool:
        return (
            self.types is None
            and self.senders is None
            and not self.not_types
            and not self.not_senders
        )


class EventFilter(_TypesAndSenders, frozen=True, dict=True):
    """A filter of events outside of rooms: presence and account data."""

    @property
    def is_default(self) -> bool:
        """Whether every event passes, so that `matches` need not be called."""
        return self._names_nothing

    def matches(self, event_type: str, sender: str | None) -> bool:
        """Whether an event passes. `sender` is `None` for events that have none."""
        return self._names_nothing or self._passes(event_type, sender)


class RoomEventFilter(_TypesAndSenders, frozen=True, dict=True):
    """A filter of events of rooms."""

    rooms: tuple[RoomIdText, ...] | None = None
    not_rooms: tuple[RoomIdText, ...] = ()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    @property
    def is_default(self) -> bool:
        """Whether every event of a room that passes `matches_room` passes too."""
        return self._names_nothing and self.contains_url is None

    @property
    def matches_all_rooms(self) -> bool:
        """Whether events of every room are wanted."""
        return self.rooms is None and not self.not_rooms

    def matches_room(self, room_id: str) -> bool:
        """Whether anything of this room is wanted."""
        return self._rooms.has(room_id)

    @cached_property
    def _rooms(self) -> "_Listed":
        return _Listed(self.rooms, self.not_rooms)

    def matches(self, event_type: str, sender: str | None, content: Mapping[str, Any]) -> bool:
        """Whether an event passes, the room aside. `sender` is `None` for ephemeral events."""
        if self.contains_url is not None and self.contains_url != ("url" in content):
            return False
        return self._names_nothing or self._passes(event_type, sender)


class RoomFilter(msgspec.Struct, frozen=True, dict=True):
    """A filter of rooms. `rooms` and `not_rooms` are applied before the filters inside."""

    rooms: tuple[RoomIdText, ...] | None = None
    not_rooms: tuple[RoomIdText, ...] = ()
    include_leave: bool = False
    account_data: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    ephemeral: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    state: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    timeline: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)

    @property
    def matches_all_rooms(self) -> bool:
        """Whether anything of every room is wanted."""
        return self.rooms is None and not self.not_rooms

    def matches_room(self, room_id: str) -> bool:
        """Whether anything of this room is wanted."""
        return self._rooms.has(room_id)

    @cached_property
    def _rooms(self) -> "_Listed":
        return _Listed(self.rooms, self.not_rooms)


class ProfileFieldsFilter(msgspec.Struct, frozen=True):
    """The names of the fields of profiles that are wanted.

    Spec: MSC4429
    """

    ids: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] = ()


class Filter(msgspec.Struct, frozen=True):
    """The filter of a sync. `event_fields` is `None` if whole events are wanted.

    `unstable_profile_fields` are `profile_fields` under their unstable name.
    """

    event_fields: Annotated[tuple[str, ...], msgspec.Meta(max_length=100)] | None = None
    event_format: Literal["client", "federation"] = "client"
    presence: EventFilter = msgspec.field(default_factory=EventFilter)
    account_data: EventFilter = msgspec.field(default_factory=EventFilter)
    room: RoomFilter = msgspec.field(default_factory=RoomFilter)
    profile_fields: ProfileFieldsFilter | None = None
    unstable_profile_fields: ProfileFieldsFilter | None = msgspec.field(
        name=UNSTABLE_PROFILE_FIELDS, default=None
    )


def parse_filter(value: object) -> Filter:
    """The filter that decoded JSON describes. Raises `BadJson`; unknown members are ignored."""
    try:
        return msgspec.convert(value, Filter)
    except msgspec.ValidationError as error:
        raise BadJson(f"Not a filter: {error}") from error


def parse_room_event_filter(value: object) -> RoomEventFilter:
    """The filter of `/messages`, `/context` and search, from decoded JSON. Raises `BadJson`."""
    try:
        return msgspec.convert(value, RoomEventFilter)
    except msgspec.ValidationError as error:
        raise BadJson(f"Not a filter: {error}") from error


def only_fields(event: Mapping[str, Any], event_fields: Iterable[str]) -> dict[str, Any]:
    """The part of an event that `event_fields` names by dot-separated paths.

    Paths that do not exist are ignored. The event itself is not changed; the result shares its
    values.
    """
    kept: dict[str, Any] = {}
    for field in event_fields:
        _keep(event, kept, split_path(field))
    return kept


class _Listed:
    """Names that are allowed, if there is a list of these, except for those that are excluded."""

    __slots__ = ("_unwanted", "_wanted")

    def __init__(self, wanted: Iterable[str] | None, unwanted: Iterable[str]) -> None:
        self._wanted = None if wanted is None else frozenset(wanted)
        self._unwanted = frozenset(unwanted)

    def has(self, name: str | None) -> bool:
        return name not in self._unwanted and (self._wanted is None or name in self._wanted)


def _type_patterns(patterns: tuple[str, ...]) -> GlobSet:
    """A set of event types in which `*` matches any text, and all else matches itself."""
    return GlobSet(patterns, MAX_EVENT_TYPE, single=False)


def _keep(source: Mapping[str, Any], kept: dict[str, Any], path: list[str]) -> None:
    name, *rest = path
    if name not in source:
        return
    value = source[name]
    if not rest:
        kept[name] = value
    elif isinstance(value, Mapping) and kept.get(name) is not value:
        inner = kept.get(name, {})
        _keep(value, inner, rest)
        if inner:
            kept[name] = inner
