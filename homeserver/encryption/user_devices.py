"""The devices and public keys of a user, as they are shown to others.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from homeserver.protocol.encryption.cross_signing_keys import public_key_of
from homeserver.storage.encryption.cross_signing import CrossSigningRow, SignatureRow
from homeserver.storage.encryption.device_keys import DeviceRow

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

MASTER, SELF_SIGNING, USER_SIGNING = "master", "self_signing", "user_signing"


class DeviceInfo(msgspec.Struct, frozen=True):
    """A device: the name that its user gave it, and its identity keys with all public signatures.

    `keys` is `None` for a device that does not encrypt.
    """

    display_name: str | None
    keys: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class UserDevices:
    """A user's devices by id, and their cross-signing keys by usage, with all public signatures.

    It is shared by all who ask: it must not be changed. `device_keys` is the JSON object of the
    identity keys of all devices that encrypt, as clients see it, and `encoded` its parts by device.
    `stream_id` is that of the list's last change, `None` for a local user's list that has never
    changed and for a remote user whose list is not stored; `is_stale` says that a remote user's
    list may have changed since.
    """

    devices: Mapping[str, DeviceInfo]
    cross_signing: Mapping[str, Mapping[str, Any]]
    encoded: Mapping[str, bytes] = field(repr=False)
    device_keys: bytes = field(repr=False)
    cross_signing_encoded: Mapping[str, bytes] = field(repr=False)
    stream_id: int | None = None
    is_stale: bool = False

    @property
    def is_current(self) -> bool:
        """Whether a remote user's list is stored, and every change of it known here."""
        return self.stream_id is not None and not self.is_stale

    @property
    def size(self) -> int:
        """Roughly the memory that it takes, in bytes."""
        return 1_000 + 4 * len(self.device_keys) + 500 * len(self.devices)

    def public_key_of(self, usage: str) -> str | None:
        """The public key of a cross-signing key, in Base64."""
        key = self.cross_signing.get(usage)
        return None if key is None else public_key_of(key)


def build_user_devices(
    devices: Iterable[DeviceRow],
    cross_signing: Iterable[CrossSigningRow],
    signatures: Sequence[SignatureRow] = (),
    stream_id: int | None = None,
    *,
    is_stale: bool = False,
) -> UserDevices:
    """The value for one user, of the stored rows; `signatures` are the user's own."""
    found: dict[str, DeviceInfo] = {}
    encoded: dict[str, bytes] = {}
    by_key: dict[str, list[SignatureRow]] = {}
    for signature in signatures:
        by_key.setdefault(signature.key_id, []).append(signature)
    for row in devices:
        keys: Mapping[str, Any] | None = None if row.keys is None else _decode(row.keys)
        if keys is not None:
            keys = with_signatures(keys, row.user_id, by_key.get(row.device_id, ()))
            named = {} if row.display_name is None else {"device_display_name": row.display_name}
            encoded[row.device_id] = _encode({**keys, "unsigned": named})
        found[row.device_id] = DeviceInfo(row.display_name, keys)
    cross: dict[str, Mapping[str, Any]] = {}
    for own in cross_signing:
        key = _decode(own.key)
        cross[own.usage] = with_signatures(key, own.user_id, by_key.get(public_key_of(key), ()))
    return UserDevices(
        found,
        cross,
        encoded,
        object_of(encoded),
        {usage: _encode(key) for usage, key in cross.items()},
        stream_id,
        is_stale,
    )


def with_signatures(
    key: Mapping[str, Any], signer: str, signatures: Iterable[SignatureRow]
) -> Mapping[str, Any]:
    """A key object with more signatures by one user."""
    more = {row.signing_key: row.signature for row in signatures}
    if not more:
        return key
    present = key.get("signatures") or {}
    own = {**present.get(signer, {}), **more}
    return {**key, "signatures": {**present, signer: own}}


def object_of(members: Mapping[str, bytes]) -> bytes:
    """A JSON object of encoded values."""
    return b"{%s}" % b",".join(b"%s:%s" % (_encode(name), each) for name, each in members.items())
