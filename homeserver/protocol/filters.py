"""Filters: what a client wants to be told.

A filter is parsed once into immutable structs that carry the names of the specification, and then
asked about each event. What a list excludes (`not_…`) stays excluded even if another includes it.

Two parts of a filter are the caller's to apply: `limit`, and lazy loading of members.

Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import msgspec

from homeserver.protocol.errors import BadJson
from homeserver.protocol.property_paths import split_path

UserIdText = Annotated[str, msgspec.Meta(pattern="^@")]
RoomIdText = Annotated[str, msgspec.Meta(pattern="^!")]
Limit = Annotated[int, msgspec.Meta(ge=0)]  # 0 is beyond the text, but clients do send it


class _TypesAndSenders(msgspec.Struct, frozen=True, dict=True):
    """What all event filters have in common. A list that is `None` lets everything pass."""

    limit: Limit | None = None
    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    senders: tuple[UserIdText, ...] | None = None
    not_senders: tuple[UserIdText, ...] = ()

    def limit_or(self, default: int, maximum: int) -> int:
        """How many events to answer: what the client asked for, or the default, within bounds."""
        return min(default if self.limit is None else self.limit, maximum)

    def _passes(self, event_type: str, sender: str | None) -> bool:
        return (
            (self.types is None or self._types.matches(event_type))
            and (self.senders is None or sender in self.senders)
            and sender not in self.not_senders
            and not self._not_types.matches(event_type)
        )

    @cached_property
    def _types(self) -> "_TypePatterns":
        return _TypePatterns(self.types or ())

    @cached_property
    def _not_types(self) -> "_TypePatterns":
        return _TypePatterns(self.not_types)

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
        """Whether every event passes, so that there is no need to ask for each."""
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
        """Whether events of this room are wanted at all."""
        return _is_listed(room_id, self.rooms, self.not_rooms)

    def matches(self, event_type: str, sender: str | None, content: Mapping[str, Any]) -> bool:
        """Whether an event passes, the room aside. `sender` is `None` for ephemeral events."""
        if self.contains_url is not None and self.contains_url != ("url" in content):
            return False
        return self._names_nothing or self._passes(event_type, sender)


class RoomFilter(msgspec.Struct, frozen=True):
    """What is wanted of rooms. `rooms` and `not_rooms` are applied before the filters inside."""

    rooms: tuple[RoomIdText, ...] | None = None
    not_rooms: tuple[RoomIdText, ...] = ()
    include_leave: bool = False
    account_data: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    ephemeral: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    state: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    timeline: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)

    def matches_room(self, room_id: str) -> bool:
        """Whether anything of this room is wanted."""
        return _is_listed(room_id, self.rooms, self.not_rooms)


class Filter(msgspec.Struct, frozen=True):
    """The filter of a sync. `event_fields` is `None` if whole events are wanted."""

    event_fields: tuple[str, ...] | None = None
    event_format: Literal["client", "federation"] = "client"
    presence: EventFilter = msgspec.field(default_factory=EventFilter)
    account_data: EventFilter = msgspec.field(default_factory=EventFilter)
    room: RoomFilter = msgspec.field(default_factory=RoomFilter)


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

    Paths that lead nowhere are passed over. The event itself is left as it is; the result shares
    its values.
    """
    kept: dict[str, Any] = {}
    for field in event_fields:
        _keep(event, kept, split_path(field))
    return kept


class _TypePatterns:
    """A set of event types in which `*` stands for any text.

    Matching never takes longer than the text times the pattern, however many wildcards a client
    writes, which a regular expression could not promise.
    """

    __slots__ = ("_exact", "_globs")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._globs = [pattern.split("*") for pattern in patterns if "*" in pattern]

    def matches(self, event_type: str) -> bool:
        return event_type in self._exact or any(
            _glob_matches(parts, event_type) for parts in self._globs
        )


def _glob_matches(parts: list[str], text: str) -> bool:
    """Whether text begins with the first part, ends with the last and has the others between."""
    first, *middle, last = parts
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _is_listed(room_id: str, rooms: tuple[str, ...] | None, not_rooms: tuple[str, ...]) -> bool:
    return room_id not in not_rooms and (rooms is None or room_id in rooms)


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
