"""A request of sliding sync as one value, whichever form it was sent in.

Spec: MSC4186
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from homeserver.protocol.errors import InvalidParam, MatrixError
from homeserver.protocol.sliding_sync.room_config import RoomConfig

MAX_LISTS = 100
MAX_SUBSCRIPTIONS = 100
MAX_RANGES = 100  # of one list
MAX_NAME_BYTES = 255  # of a connection or a list
MAX_TIMELINE_LIMIT = 100  # events; larger limits are lowered
MAX_STATE_ELEMENTS = 500  # of one `required_state`
MAX_FILTER_ITEMS = 500  # of one member of a filter
DEFAULT_MESSAGES = 100  # to the device, in one response
DEFAULT_SUBSCRIPTIONS = 100  # to threads that changed, in one response
MAX_PROFILE_FIELDS = 100
MAX_PROFILE_FIELD_BYTES = 255  # of the name of one
DEFAULT_STICKY_EVENTS = 100  # in one response
MAX_STICKY_EVENTS = 1_000
PRESENCE_STATES = ("online", "unavailable", "offline")
ALL_SUBSCRIPTIONS = "*"


class UnknownPos(MatrixError):
    """A connection of sliding sync is not in this position, or there is none: begin again.

    Spec: MSC4186
    """

    errcode, status = "M_UNKNOWN_POS", 400


Range = tuple[int, int]  # indexes of the first and the last room


class RoomListFilters(msgspec.Struct, frozen=True):
    """The filters of a list; `None` filters nothing. `None` among room types is "no type"."""

    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    spaces: frozenset[str] | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


NO_FILTERS = RoomListFilters()


class ListConfig(msgspec.Struct, frozen=True):
    """One list: the rooms that pass the filters, at these ranges; `None` for all of them."""

    room: RoomConfig
    ranges: Sequence[Range] | None = None
    filters: RoomListFilters = NO_FILTERS


class ExtensionScope(msgspec.Struct, frozen=True):
    """The rooms of an extension: those of some lists, and some of the subscriptions.

    `None` stands for all lists, or for all subscriptions.
    """

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None

    def has_list(self, name: str) -> bool:
        """Whether the rooms of a list are in it."""
        return self.lists is None or name in self.lists

    def has_subscription(self, room_id: str) -> bool:
        """Whether a room that is subscribed to is in it."""
        return self.rooms is None or ALL_SUBSCRIPTIONS in self.rooms or room_id in self.rooms


class ToDeviceConfig(msgspec.Struct, frozen=True):
    """The extension for messages to the device: at most `limit`, above the token `since`."""

    since: str | None = None
    limit: int = DEFAULT_MESSAGES


class ProfilesConfig(msgspec.Struct, frozen=True):
    """The extension for profiles, called `name`: with these fields, `None` for all of them."""

    scope: ExtensionScope
    fields: frozenset[str] | None
    name: str


class StickyConfig(msgspec.Struct, frozen=True):
    """The extension for sticky events, by this name: about `limit`, above the token `since`."""

    name: str
    since: str | None = None
    limit: int = DEFAULT_STICKY_EVENTS


class ExtensionConfigs(msgspec.Struct, frozen=True):
    """The extensions that are enabled; `None` for those that are not.

    `threads` is the number of changed subscriptions to threads at most.
    """

    to_device: ToDeviceConfig | None = None
    e2ee: bool = False
    account_data: ExtensionScope | None = None
    receipts: ExtensionScope | None = None
    typing: ExtensionScope | None = None
    threads: int | None = None
    profiles: ProfilesConfig | None = None
    sticky: StickyConfig | None = None

    @property
    def are_of_rooms(self) -> bool:
        """Whether none is enabled but account data, receipts and typing."""
        return not (
            self.to_device is not None
            or self.e2ee
            or self.threads is not None
            or self.profiles is not None
            or self.sticky is not None
        )

    @property
    def are_of_device(self) -> bool:
        """Whether none is enabled but `to_device` and `e2ee`, or receipts and typing."""
        return (
            self.account_data is None
            and self.threads is None
            and self.profiles is None
            and self.sticky is None
        )


class RequestBody(msgspec.Struct, frozen=True):
    """What a request asks for; many clients ask for the same again and again.

    `has_counts` says that its form has unread counts. `size` is that of its JSON, in bytes.
    """

    lists: Mapping[str, ListConfig] = msgspec.field(default_factory=dict)
    subscriptions: Mapping[str, RoomConfig] = msgspec.field(default_factory=dict)
    extensions: ExtensionConfigs = ExtensionConfigs()
    has_counts: bool = False
    size: int = 0

    @property
    def is_of_device(self) -> bool:
        """Whether it asks for no room, but only for what concerns the device.

        So do clients that have a connection of its own for encryption.
        """
        return not self.lists and not self.subscriptions and self.extensions.are_of_device

    def __post_init__(self) -> None:
        """Raises `InvalidParam` for more than a request may have."""
        if len(self.lists) > MAX_LISTS:
            raise InvalidParam(f"A request has at most {MAX_LISTS} lists")
        if len(self.subscriptions) > MAX_SUBSCRIPTIONS:
            raise InvalidParam(f"A request has at most {MAX_SUBSCRIPTIONS} room subscriptions")
        for name in self.lists:
            check_name(name)


class SlidingSyncRequest(NamedTuple):
    """A request. `pos` is `None` for the first one of a connection; `timeout` is in ms."""

    body: RequestBody
    conn_id: str
    pos: str | None
    timeout: int


def check_name(name: str) -> str:
    """The name of a connection or a list itself. Raises `InvalidParam` for one that is too long."""
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidParam(f"`conn_id` and the names of lists have at most {MAX_NAME_BYTES} bytes")
    return name


def check_range(name: str, ends: Range) -> Range:
    """The range itself. Raises `InvalidParam` for one that cannot be a range of a list."""
    start, end = ends
    if not 0 <= start <= end:
        raise InvalidParam(f"{name}: a range has two indexes from 0, the smaller one first")
    return ends


def check_presence(state: str | None) -> str | None:
    """The state itself. Raises `InvalidParam` for an unknown one."""
    if state is not None and state not in PRESENCE_STATES:
        raise InvalidParam(f"`set_presence` is one of {', '.join(PRESENCE_STATES)}")
    return state


def check_timeline_limit(name: str, limit: int) -> int:
    """The limit, lowered to the highest possible. Raises `InvalidParam` for a negative one."""
    if limit < 0:
        raise InvalidParam(f"{name}: `timeline_limit` cannot be negative")
    return min(limit, MAX_TIMELINE_LIMIT)


def check_count(name: str, items: Sequence[object], limit: int) -> None:
    """Raise `InvalidParam` for a list with too many items."""
    if len(items) > limit:
        raise InvalidParam(f"{name}: a list has at most {limit} items")
