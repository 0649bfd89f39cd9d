"""An update: what a device has not seen, in the format of a `/sync` response.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.encryption.key_counts import NO_KEYS, KeyCounts
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.device_list_updates import NO_DEVICE_LIST_UPDATE, DeviceListUpdate
from homeserver.sync.sync_span import SyncSpan

_encode = msgspec.json.Encoder().encode

MAX_CACHED_SECTIONS = 64
MAX_CACHED_SECTION_BYTES = 16_384  # that a cached section may have


NO_EVENTS = b'{"events":[]}'
EncodedSections = dict[tuple[SyncToken, str, bytes], bytes]
"""Encoded updates by the token after them, the room, and its section.

For an update with nothing but a change of presence: no room, and the event.
"""


class Update(msgspec.Struct):
    """The changes of a span. Values of the room sections are JSON bytes.

    `encoded_sections` is a cache: the members of a room often get the same update, and then it is
    the same object. `users` are the profiles of users, in the section `users_name`. `shown` are the
    users whose profiles the client needs to show what it is sent of rooms; `None` if it wants no
    profiles, or all.
    """

    span: SyncSpan
    encoded_sections: EncodedSections = msgspec.field(default_factory=dict)
    joined: dict[str, bytes] = msgspec.field(default_factory=dict)
    invited: dict[str, bytes] = msgspec.field(default_factory=dict)
    knocked: dict[str, bytes] = msgspec.field(default_factory=dict)
    left: dict[str, bytes] = msgspec.field(default_factory=dict)
    account_data: Sequence[msgspec.Raw] = ()
    presence: Sequence[msgspec.Raw] = ()
    to_device: Sequence[bytes] = ()
    device_lists: DeviceListUpdate = NO_DEVICE_LIST_UPDATE
    key_counts: KeyCounts = NO_KEYS
    has_new_key_counts: bool = False
    users: Mapping[str, bytes] | None = None
    users_name: str = ""
    shown: set[str] | None = None
    _text: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing that the client does not have."""
        return not (self.joined or self.has_new_key_counts) and self._is_of_joined_rooms

    @property
    def next_batch(self) -> str:
        """The token to continue from."""
        return self.span.token.text

    def encode(self) -> bytes:
        """The response as JSON, to be called when the update is complete."""
        if self._text is None:
            self._text = b"".join((*self._encode_shared(), self.key_counts.members, b"}"))
        return self._text

    def _encode_shared(self) -> Sequence[bytes]:
        """All but what is left of the device's keys, which few have in common: in parts."""
        if len(self.joined) == 1 and self._is_of_joined_rooms:
            ((room_id, section),) = self.joined.items()
        elif len(self.presence) == 1 and self._is_of_presence:
            room_id, section = "", bytes(self.presence[0])
        else:
            return self._parts()
        if len(section) > MAX_CACHED_SECTION_BYTES:
            return self._parts()
        key = self.span.token, room_id, section
        encoded = self.encoded_sections.get(key)
        if encoded is None:
            if len(self.encoded_sections) >= MAX_CACHED_SECTIONS:
                self.encoded_sections.clear()
            encoded = self.encoded_sections[key] = b"".join(self._parts())
        return (encoded,)

    @property
    def _is_of_joined_rooms(self) -> bool:
        return not self.presence and self._has_no_more

    @property
    def _is_of_presence(self) -> bool:
        return not self.joined and self._has_no_more

    @property
    def _has_no_more(self) -> bool:
        """Whether it has joined rooms and presence at most."""
        return not (
            self.invited
            or self.knocked
            or self.left
            or self.account_data
            or self.to_device
            or self.users
            or self.device_lists is not NO_DEVICE_LIST_UPDATE
        )

    def _parts(self) -> list[bytes]:
        """The JSON in parts: there may be many megabytes, which are to be copied only once."""
        parts = [b'{"next_batch":"', self.next_batch.encode(), b'"']
        before = b',"rooms":{'
        for name, rooms in (
            (b'"join":{', self.joined),
            (b'"invite":{', self.invited),
            (b'"knock":{', self.knocked),
            (b'"leave":{', self.left),
        ):
            if rooms:
                parts += [before, name, *_members(rooms), b"}"]
                before = b","
        if before == b",":
            parts.append(b"}")
        if self.account_data:
            parts += [b',"account_data":', events_json(self.account_data)]
        if self.presence:
            parts += [b',"presence":', events_json(self.presence)]
        if self.to_device:
            parts += [b',"to_device":', events_json(self.to_device)]
        if self.device_lists is not NO_DEVICE_LIST_UPDATE:
            changed, left = self.device_lists.changed, self.device_lists.left
            lists = {"changed": sorted(changed), "left": sorted(left)}
            lists = {name: user_ids for name, user_ids in lists.items() if user_ids}
            parts += [b',"device_lists":', _encode(lists)]
        if self.users:
            parts += [b',"%s":{' % self.users_name.encode(), *_members(self.users), b"}"]
        return parts


def events_json(events: Sequence[bytes | msgspec.Raw]) -> bytes:
    """`{"events": […]}` of encoded events."""
    return b'{"events":[%s]}' % b",".join(bytes(event) for event in events)


def join_events(one: bytes, other: bytes) -> bytes:
    """`{"events": […]}` of the events of two of them."""
    if one == NO_EVENTS or other == NO_EVENTS:
        return other if one == NO_EVENTS else one
    return one[:-2] + b"," + other[len(NO_EVENTS) - 2 :]


def section_json(parts: dict[str, bytes]) -> bytes:
    """A JSON object of encoded members."""
    return b"{%s}" % b",".join(b'"%s":%s' % (name.encode(), value) for name, value in parts.items())


def typed_event(event_type: str, content: bytes | msgspec.Raw) -> msgspec.Raw:
    """`{"type", "content"}`, the format of account data and ephemeral events."""
    return msgspec.Raw(b'{"type":%s,"content":%s}' % (_encode(event_type), bytes(content)))


def encode(value: Any) -> bytes:
    """JSON of any value."""
    return _encode(value)


def _members(sections: Mapping[str, bytes]) -> list[bytes]:
    """The members of a JSON object, in parts."""
    parts: list[bytes] = []
    for name, section in sections.items():
        parts += (b",", _encode(name), b":", section)
    return parts[1:]
