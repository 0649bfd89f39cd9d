"""Signatures of keys by the keys of their owner, or of another user.

A signature covers a key without its `signatures` and `unsigned`. Both the key that was uploaded
with a signature and the signature itself come from a client: the key is compared with the one that
is stored, and the signature is checked over the stored one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Mapping
from typing import Any

from homeserver.protocol.errors import InvalidParam, InvalidSignature
from homeserver.protocol.signing.signatures import ALGORITHM, BadSignature, verify_signed_json
from homeserver.protocol.signing.unpadded_base64 import decode_base64, encode_base64

Key = Mapping[str, Any]
"""A key as a JSON object: the identity keys of a device, or a cross-signing key."""


def key_name(key_id: str) -> str:
    """The name of a key in `keys` and `signatures`; its id is that of a device, or a public key."""
    return f"{ALGORITHM}:{key_id}"


def signed_part(key: Key) -> dict[str, Any]:
    """What a signature of a key covers."""
    return {name: value for name, value in key.items() if name not in ("signatures", "unsigned")}


def check_is_same(signed: Key, stored: Key) -> None:
    """Check that a client signed the key that is stored. Raises `InvalidParam`."""
    if signed_part(signed) != signed_part(stored):
        raise InvalidParam("The signed key is not the one that was uploaded")


def signatures_by(key: Key, signer: str) -> dict[str, str]:
    """The Ed25519 signatures of a key by a user, by the name of the signing key; not checked."""
    signatures = key.get("signatures")
    own = signatures.get(signer) if isinstance(signatures, Mapping) else None
    if not isinstance(own, Mapping):
        return {}
    prefix = key_name("")
    return {
        name: text
        for name, text in own.items()
        if name.startswith(prefix) and isinstance(text, str)
    }


def check_signature(key: Key, signer: str, name: str, signature: str, public_key: str) -> str:
    """The signature of a key by `name`, whose public key is given, in the form that is stored.

    Raises `InvalidSignature`.
    """
    signed = {**signed_part(key), "signatures": {signer: {name: signature}}}
    try:
        verify_signed_json(signed, signer, name, public_key)
    except BadSignature as error:
        raise InvalidSignature(f"Invalid signature by {name}: {error}") from None
    # The same bytes can be written with any number of `=` behind them.
    return encode_base64(decode_base64(signature))
