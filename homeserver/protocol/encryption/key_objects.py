"""The shapes of keys that clients upload, and the checks on them.

The server passes keys on and cannot vouch for them: clients verify the signatures. So
only what would be wrong in every key is refused here: another user's or device's name, a shape that
no client could read, and sizes beyond all use. Members that the specification does not know pass
through.

Spec: https://spec.matrix.org/v1.19/client-server-api/#key-algorithms
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.protocol.errors import BadJson, InvalidParam, TooLarge
from homeserver.protocol.signing.canonical_json import NotCanonical, encode_canonical

MAX_DEVICE_KEYS_BYTES = 65_536
MAX_LIST_BYTES = 2 * 1_048_576  # of the identity keys of all devices of a user
MAX_CLAIMABLE_KEY_BYTES = 4_096
MAX_KEY_ID_BYTES = 255

Signatures = dict[str, dict[str, str]]


class _DeviceKeys(msgspec.Struct):
    user_id: str
    device_id: str
    algorithms: list[str]
    keys: dict[str, str]
    signatures: Signatures


class _SignedKey(msgspec.Struct):
    key: str
    signatures: Signatures = {}
    fallback: bool = False


def encode_device_keys(keys: Mapping[str, Any], user_id: str, device_id: str) -> bytes:
    """The canonical JSON of the identity keys of a device, checked.

    Raises `BadJson` for another shape or JSON that cannot be signed, `InvalidParam` for the keys of
    another user or device, and `TooLarge`.
    """
    shape = _as(_DeviceKeys, keys, "device_keys")
    if (shape.user_id, shape.device_id) != (user_id, device_id):
        raise InvalidParam("The keys are those of another user or device")
    return _encoded(keys, "device_keys", MAX_DEVICE_KEYS_BYTES)


def split_key_name(name: str) -> tuple[str, str]:
    """Algorithm and key id of `<algorithm>:<key_id>`. Raises `InvalidParam`."""
    algorithm, colon, key_id = name.partition(":")
    if not (algorithm and colon and key_id) or len(name.encode()) > MAX_KEY_ID_BYTES:
        raise InvalidParam("A key is named by its algorithm, a colon, and its ID")
    return algorithm, key_id


def encode_claimable_key(name: str, key: Any) -> bytes:
    """The canonical JSON of a one-time or fallback key: a string, or an object with signatures.

    Raises `BadJson` for another shape or JSON that cannot be signed, and `TooLarge`.
    """
    if not isinstance(key, str):
        _as(_SignedKey, key, name)
    return _encoded(key, name, MAX_CLAIMABLE_KEY_BYTES)


def is_same_key(key: bytes, other: bytes) -> bool:
    """Whether two one-time keys are the same, apart from their signatures."""
    return bool(_unsigned(msgspec.json.decode(key)) == _unsigned(msgspec.json.decode(other)))


def _unsigned(key: Any) -> Any:
    if not isinstance(key, dict):
        return key
    return {name: value for name, value in key.items() if name != "signatures"}


def _as(shape: Any, value: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise BadJson(f"{name}: {error}") from None


def _encoded(value: Any, name: str, most: int) -> bytes:
    try:
        encoded = encode_canonical(value)
    except NotCanonical as error:
        raise BadJson(f"{name}: {error}") from None
    if len(encoded) > most:
        raise TooLarge(f"{name}: keys have at most {most} bytes")
    return encoded
