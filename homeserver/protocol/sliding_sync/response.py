"""A response of sliding sync as one value, and its JSON in both forms.

Events and other parts are JSON already where they come from; a response only joins them.

Spec: MSC4186
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from homeserver.protocol.proposals.unstable_names import THREADS_EXTENSION

_encode = msgspec.json.Encoder().encode


class Form(Enum):
    """The form of a response: `DEPLOYED` under the unstable prefix, or `ACCEPTED`."""

    DEPLOYED = "deployed"
    ACCEPTED = "accepted"


DEPLOYED_NAMES = {
    "expanded_timeline": "unstable_expanded_timeline",
    "stripped_state": "invite_state",
}
ONLY_DEPLOYED = frozenset({"notification_count", "highlight_count"})
ONLY_ACCEPTED = frozenset({"membership", "lists"})


class Hero(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member whose name stands for that of a room without one."""

    user_id: str
    displayname: str | None = None
    avatar_url: str | None = None


class RoomResult(msgspec.Struct):
    """What is new of one room; members that are `UNSET` did not change, and are left out.

    The members of type `Raw` are JSON lists. `event_ids` are those of the timeline.
    `removed` are types and state keys that the state does not have any more: the accepted form has
    stubs of them in `required_state`. `encoded` caches the JSON of a result that many readers get,
    which must not be changed any more.
    """

    membership: str
    bump_stamp: int | UnsetType = UNSET
    initial: bool | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    avatar: str | UnsetType | None = UNSET
    heroes: Sequence[Hero] | UnsetType = UNSET
    is_dm: bool | UnsetType = UNSET
    joined_count: int | UnsetType = UNSET
    invited_count: int | UnsetType = UNSET
    notification_count: int | UnsetType = UNSET
    highlight_count: int | UnsetType = UNSET
    timeline: msgspec.Raw | UnsetType = UNSET
    num_live: int | UnsetType = UNSET
    prev_batch: str | UnsetType = UNSET
    limited: bool | UnsetType = UNSET
    expanded_timeline: bool | UnsetType = UNSET
    required_state: msgspec.Raw | UnsetType = UNSET
    removed: Sequence[tuple[str, str]] = ()
    event_ids: frozenset[str] = frozenset()
    encoded: dict[Form, bytes] | None = None
    stripped_state: msgspec.Raw | UnsetType = UNSET
    lists: Sequence[str] | UnsetType = UNSET

    def encode(self, form: Form) -> bytes:
        """The result as JSON."""
        if self.encoded is None:
            return self._encode(form)
        encoded = self.encoded.get(form)
        if encoded is None:
            encoded = self.encoded[form] = self._encode(form)
        return encoded

    def _encode(self, form: Form) -> bytes:
        members = {name: value for name in _MEMBERS if (value := getattr(self, name)) is not UNSET}
        if form is Form.DEPLOYED:
            members = {
                DEPLOYED_NAMES.get(name, name): value
                for name, value in members.items()
                if name not in ONLY_ACCEPTED
            }
        else:
            members = {name: value for name, value in members.items() if name not in ONLY_DEPLOYED}
            if self.removed:
                members["required_state"] = self._with_stubs()
        return _encode(members)

    def _with_stubs(self) -> msgspec.Raw:
        stubs = _encode([{"type": key[0], "state_key": key[1]} for key in self.removed])
        state = b"[]" if self.required_state is UNSET else bytes(self.required_state)
        return msgspec.Raw(stubs if state == b"[]" else state[:-1] + b"," + stubs[1:])


_MEMBERS = tuple(
    name for name in RoomResult.__struct_fields__ if name not in ("removed", "event_ids", "encoded")
)


class ExtensionResults(msgspec.Struct):
    """What the extensions add. Values are JSON; `None` is left out.

    `to_device_next` is the token in `to_device` from which the next request continues.
    """

    to_device: bytes | None = None
    e2ee: bytes | None = None
    account_data_global: Sequence[bytes] = ()
    account_data_rooms: dict[str, Sequence[bytes]] = msgspec.field(default_factory=dict)
    receipts: dict[str, bytes] = msgspec.field(default_factory=dict)
    typing: dict[str, bytes] = msgspec.field(default_factory=dict)
    threads: bytes | None = None
    profiles: bytes | None = None
    profiles_name: str = ""
    sticky: tuple[str, bytes] | None = None  # with the name of the extension
    to_device_next: str | None = None

    def encode(self) -> bytes:
        """The member `extensions` as JSON."""
        if self is NO_RESULTS or self == NO_RESULTS:
            return b"{}"
        members: dict[str, Any] = {}
        if self.to_device is not None:
            members["to_device"] = msgspec.Raw(self.to_device)
        if self.e2ee is not None:
            members["e2ee"] = msgspec.Raw(self.e2ee)
        if self.threads is not None:
            members[THREADS_EXTENSION] = msgspec.Raw(self.threads)
        if self.profiles is not None:
            members[self.profiles_name] = msgspec.Raw(self.profiles)
        if self.sticky is not None:
            members[self.sticky[0]] = msgspec.Raw(self.sticky[1])
        if self.account_data_global or self.account_data_rooms:
            members["account_data"] = msgspec.Raw(self._account_data())
        for name, rooms in (("receipts", self.receipts), ("typing", self.typing)):
            if rooms:
                members[name] = {"rooms": {each: msgspec.Raw(raw) for each, raw in rooms.items()}}
        return _encode(members)

    def _account_data(self) -> bytes:
        rooms = {room: _json_list(events) for room, events in self.account_data_rooms.items()}
        return _encode({"global": _json_list(self.account_data_global), "rooms": rooms})


NO_RESULTS: Final = ExtensionResults()
"""No extension has anything new; not to be changed."""


class SlidingSyncResponse(msgspec.Struct):
    """A response: the next `pos`, the number of rooms in each list, and what is new of rooms."""

    pos: str
    lists: Mapping[str, int] = msgspec.field(default_factory=dict)
    rooms: Mapping[str, RoomResult] = msgspec.field(default_factory=dict)
    extensions: ExtensionResults = msgspec.field(default_factory=ExtensionResults)

    def encode(self, form: Form) -> bytes:
        """The response as JSON."""
        rooms = [
            b"%s:%s" % (_encode(room_id), room.encode(form)) for room_id, room in self.rooms.items()
        ]
        return b'{"pos":"%s","lists":%s,"rooms":{%s},"extensions":%s}' % (
            self.pos.encode(),
            _lists_json(tuple(self.lists.items())),
            b",".join(rooms),
            self.extensions.encode(),
        )


@lru_cache(maxsize=256)
def _lists_json(counts: tuple[tuple[str, int], ...]) -> bytes:
    """The member `lists`: most responses have the one of the response before."""
    return _encode({name: {"count": count} for name, count in counts})


def _json_list(events: Sequence[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[%s]" % b",".join(events))
