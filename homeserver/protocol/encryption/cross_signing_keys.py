"""Cross-signing keys: the checks on those that a user uploads.

Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from homeserver.protocol.encryption.key_signatures import (
    Key,
    check_signature,
    key_name,
    signatures_by,
)
from homeserver.protocol.errors import BadJson, InvalidParam, InvalidSignature, TooLarge
from homeserver.protocol.signing.canonical_json import NotCanonical, encode_canonical
from homeserver.protocol.signing.unpadded_base64 import decode_base64, encode_base64

PUBLIC_KEY_BYTES = 32
MAX_KEY_BYTES = 16_384  # of canonical JSON; three of them fit into an authentication session


class CrossSigningKey(NamedTuple):
    """A cross-signing key: the public key, the object that was uploaded, and its canonical JSON.

    Of its signatures only those by its own user are left: nobody else may see others.
    """

    public_key: str
    content: Key
    encoded: bytes


class _CrossSigningKey(msgspec.Struct):
    user_id: str
    usage: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]] | msgspec.UnsetType = msgspec.UNSET


def parse_cross_signing_key(key: Mapping[str, Any], user_id: str, usage: str) -> CrossSigningKey:
    """A user's key for a usage: `master`, `self_signing` or `user_signing`.

    Raises `BadJson` for another shape or JSON that cannot be signed, `InvalidParam` for the key of
    another user, for another usage, or with another public key than its name says, and `TooLarge`.
    """
    try:
        shape = msgspec.convert(key, _CrossSigningKey)
    except msgspec.ValidationError as error:
        raise BadJson(f"{usage}: {error}") from None
    if shape.user_id != user_id:
        raise InvalidParam(f"{usage}: the key is that of another user")
    if usage not in shape.usage:
        raise InvalidParam(f"{usage}: `usage` says that the key is for something else")
    if len(shape.keys) != 1:
        raise InvalidParam(f"{usage}: there is exactly one public key in `keys`")
    [(name, public_key)] = shape.keys.items()
    if name != key_name(public_key) or not is_public_key(public_key):
        raise InvalidParam(
            f"{usage}: the public key has {PUBLIC_KEY_BYTES} bytes in unpadded Base64,"
            " and is named by `ed25519:` and itself"
        )
    content = dict(key)
    if shape.signatures is not msgspec.UNSET:
        content["signatures"] = {
            signer: each for signer, each in shape.signatures.items() if signer == user_id
        }
    try:
        encoded = encode_canonical(content)
    except NotCanonical as error:
        raise BadJson(f"{usage}: {error}") from None
    if len(encoded) > MAX_KEY_BYTES:
        raise TooLarge(f"{usage}: a cross-signing key has at most {MAX_KEY_BYTES} bytes")
    return CrossSigningKey(public_key, content, encoded)


def check_signed_by_master(key: CrossSigningKey, user_id: str, master_key: str) -> None:
    """Check the signature by a user's master key, whose public key is given.

    Raises `InvalidSignature`.
    """
    name = key_name(master_key)
    signature = signatures_by(key.content, user_id).get(name)
    if signature is None:
        raise InvalidSignature(f"The key {key.public_key} is not signed by the master key")
    check_signature(key.content, user_id, name, signature, master_key)


def public_key_of(key: Key) -> str:
    """The public key of a cross-signing key that was checked."""
    public_key: str = next(iter(key["keys"].values()))
    return public_key


def is_public_key(text: str) -> bool:
    """Whether a text has the only form that an Ed25519 public key may have: unpadded Base64."""
    try:
        decoded = decode_base64(text)
    except ValueError:
        return False
    return len(decoded) == PUBLIC_KEY_BYTES and encode_base64(decoded) == text
