"""Keys and device lists as other servers send them, and the checks on them.

Another server may send anything, and passes on what its users wrote. Only what was asked for, of
the right user and device, of the right shape and of a bounded size is used; the rest is dropped,
and what is next to it is used. Members that the specification does not know pass through, and no
signature is verified here: that is for clients.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.protocol.encryption.cross_signing_keys import parse_cross_signing_key
from homeserver.protocol.encryption.key_objects import (
    MAX_CLAIMABLE_KEY_BYTES,
    MAX_DEVICE_KEYS_BYTES,
    MAX_KEY_ID_BYTES,
    MAX_LIST_BYTES,
)
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.json_elements import BadElement, decodable, decode_apart, decode_or_none

MAX_DEVICES = 2_000  # of one user
MAX_DEVICE_ID_BYTES = 255
MAX_DISPLAY_NAME_BYTES = 1_024
MAX_STREAM_ID = (1 << 53) - 1
MAX_PREVIOUS = 100  # updates that one update may follow
SHOWN_USAGES = ("master", "self_signing")  # user-signing keys are for their own user only

_encode = msgspec.json.Encoder(order="deterministic").encode
Signatures = dict[str, dict[str, str]]
Elements = Mapping[str, msgspec.Raw]


class InvalidKeys(ValueError):
    """The whole of a response or an EDU cannot be used."""


class RemoteDevice(msgspec.Struct, frozen=True):
    """A device of a remote user; `keys` is JSON, `None` if it does not encrypt."""

    display_name: str | None
    keys: bytes | None


class RemoteKeys(msgspec.Struct, frozen=True):
    """Devices of a remote user by id, and their cross-signing keys, as JSON, by usage."""

    devices: Mapping[str, RemoteDevice] = msgspec.field(default_factory=dict)
    cross_signing: Mapping[str, bytes] = msgspec.field(default_factory=dict)


class RemoteDeviceList(msgspec.Struct, frozen=True):
    """All devices of a remote user, and the version of the list among its updates."""

    stream_id: int
    keys: RemoteKeys


class DeviceUpdate(msgspec.Struct, frozen=True):
    """A change of one device, which follows the updates `previous`; `device` is `None` if it is
    deleted.
    """

    device_id: str
    stream_id: int
    previous: Sequence[int]
    device: RemoteDevice | None


class _DeviceKeys(msgspec.Struct):
    """Members that are present must be right; clients need more of them than servers do."""

    user_id: str | None = None
    device_id: str | None = None
    algorithms: list[str] = []
    keys: dict[str, Any] = {}
    signatures: Signatures = {}


class _ClaimedKey(msgspec.Struct):
    key: str
    signatures: Signatures = {}


class _ListedDevice(msgspec.Struct):
    device_id: str
    keys: msgspec.Raw = msgspec.Raw(b"null")
    device_display_name: Any = None


class DeviceListResponse(msgspec.Struct):
    """A device list as its server sends it; each part is decoded alone, as any may be malformed."""

    user_id: str
    stream_id: int
    devices: list[msgspec.Raw]
    master_key: msgspec.Raw = msgspec.Raw(b"null")
    self_signing_key: msgspec.Raw = msgspec.Raw(b"null")


class _Update(msgspec.Struct):
    device_id: str
    stream_id: int
    prev_id: list[int] | None = None
    device_display_name: Any = None
    deleted: bool | None = None
    keys: dict[str, Any] | None = None


def parse_device_list(user_id: str, response: DeviceListResponse) -> RemoteDeviceList:
    """The device list in a response about a user. Raises `InvalidKeys`."""
    if response.user_id != user_id:
        raise InvalidKeys("the device list of another user")
    if not 0 <= response.stream_id <= MAX_STREAM_ID:
        raise InvalidKeys("the stream id is out of range")
    listed = {
        each.device_id: parse_device(
            user_id, each.device_id, each.device_display_name, decode_or_none(each.keys)
        )
        for each in decodable(response.devices[:MAX_DEVICES], _ListedDevice)
    }
    raw_keys = {"master": response.master_key, "self_signing": response.self_signing_key}
    return RemoteDeviceList(
        response.stream_id,
        RemoteKeys(_bounded(listed.items()), _parse_cross_signing(user_id, raw_keys)),
    )


def parse_queried_keys(
    user_id: str, devices: msgspec.Raw, cross_signing: Mapping[str, msgspec.Raw]
) -> RemoteKeys | None:
    """The keys in a response to a query for one user, whose cross-signing keys are by usage.

    `None` if it has no devices of the user that could be read.
    """
    try:
        by_device: Elements = decode_apart(dict[str, msgspec.Raw], devices)
    except BadElement:
        return None
    parsed: dict[str, RemoteDevice | None] = {}
    for device_id, raw in list(by_device.items())[:MAX_DEVICES]:
        keys = decode_or_none(raw)
        unsigned = keys.get("unsigned") if isinstance(keys, dict) else None
        name = unsigned.get("device_display_name") if isinstance(unsigned, dict) else None
        parsed[device_id] = None if keys is None else parse_device(user_id, device_id, name, keys)
    return RemoteKeys(_bounded(parsed.items()), _parse_cross_signing(user_id, cross_signing))


def parse_claimed_key(algorithm: str, response: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """The one key of an algorithm in a response to a claim for a device, by its name."""
    try:
        keys: Elements = decode_apart(dict[str, msgspec.Raw], response)
    except BadElement:
        return None
    for name, raw in list(keys.items())[:2]:
        key = decode_or_none(raw)
        if (
            name.startswith(f"{algorithm}:")
            and _fits(name, MAX_KEY_ID_BYTES)
            and len(raw) <= MAX_CLAIMABLE_KEY_BYTES
            and (isinstance(key, str) or _as(_ClaimedKey, key) is not None)
        ):
            return {name: raw}
    return None


def parse_device_update(user_id: str, content: Mapping[str, Any]) -> DeviceUpdate:
    """The update in an EDU about a user's device. Raises `InvalidKeys`."""
    try:
        update = msgspec.convert(content, _Update)
    except msgspec.ValidationError as error:
        raise InvalidKeys(f"not an update of a device list: {error}") from None
    previous = update.prev_id or []
    if len(previous) > MAX_PREVIOUS or not all(
        0 <= each <= MAX_STREAM_ID for each in (update.stream_id, *previous)
    ):
        raise InvalidKeys("the stream ids are out of range")
    if not _is_device_id(update.device_id):
        raise InvalidKeys("not a device id")
    device = None
    if not update.deleted:
        device = parse_device(user_id, update.device_id, update.device_display_name, update.keys)
        if device is None:
            raise InvalidKeys("the keys of the device cannot be used")
    return DeviceUpdate(update.device_id, update.stream_id, tuple(previous), device)


def parse_signing_key_update(user_id: str, content: Mapping[str, Any]) -> dict[str, bytes]:
    """The cross-signing keys in an EDU about a user, by usage. Raises `InvalidKeys`."""
    given = {usage: content.get(f"{usage}_key") for usage in SHOWN_USAGES}
    keys: dict[str, bytes] = {}
    for usage, key in given.items():
        parsed = None if key is None else _cross_signing_key(user_id, usage, key)
        if parsed is not None:
            keys[usage] = parsed
        elif key is not None:
            raise InvalidKeys("a cross-signing key cannot be used")
    if not keys:
        raise InvalidKeys("the update has no cross-signing key")
    return keys


def parse_device(user_id: str, device_id: str, name: Any, keys: Any) -> RemoteDevice | None:
    """A device of a user; `None` if it cannot be shown to clients.

    A name that cannot be shown is left out. `keys` is `None` for a device that does not encrypt.
    """
    if not _is_device_id(device_id):
        return None
    is_shown = isinstance(name, str) and "\0" not in name and _fits(name, MAX_DISPLAY_NAME_BYTES)
    shown = name if is_shown else None
    if keys is None:
        return RemoteDevice(shown, None)
    shape = _as(_DeviceKeys, keys)
    if (
        shape is None
        or shape.user_id not in (None, user_id)
        or shape.device_id not in (None, device_id)
    ):
        return None
    encoded = _encoded({key: each for key, each in keys.items() if key != "unsigned"})
    if encoded is None or len(encoded) > MAX_DEVICE_KEYS_BYTES:
        return None
    return RemoteDevice(shown, encoded)


def _bounded(devices: Iterable[tuple[str, RemoteDevice | None]]) -> dict[str, RemoteDevice]:
    """The usable devices, as many as may be stored for one user."""
    found: dict[str, RemoteDevice] = {}
    size = 0
    for device_id, device in devices:
        if device is None:
            continue
        size += len(device_id) + len(device.display_name or "") + len(device.keys or b"")
        if size > MAX_LIST_BYTES:
            break
        found[device_id] = device
    return found


def _parse_cross_signing(user_id: str, keys: Mapping[str, msgspec.Raw]) -> dict[str, bytes]:
    """The usable cross-signing keys by usage."""
    found = {
        usage: _cross_signing_key(user_id, usage, decode_or_none(raw))
        for usage, raw in keys.items()
    }
    return {usage: key for usage, key in found.items() if key is not None}


def _cross_signing_key(user_id: str, usage: str, key: Any) -> bytes | None:
    try:
        return parse_cross_signing_key(key, user_id, usage).encoded
    except MatrixError:
        return None


def _as(shape: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError:
        return None


def _encoded(value: Any) -> bytes | None:
    try:
        return _encode(value)
    except (UnicodeEncodeError, RecursionError):
        return None


def _is_device_id(text: str) -> bool:
    return bool(text) and "\0" not in text and _fits(text, MAX_DEVICE_ID_BYTES)


def _fits(text: str, most: int) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) <= most
