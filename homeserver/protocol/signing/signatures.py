"""Ed25519 signatures of JSON objects and of events, and the file that holds a server's keys.

A signature covers the canonical JSON of the object without `signatures` and `unsigned`; an event is
redacted first. Functions return new objects and do not change their arguments. The caller provides
random bytes for a new key.

Spec: https://spec.matrix.org/v1.19/appendices/#signing-json
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nacl import signing
from nacl.bindings import crypto_sign
from nacl.exceptions import CryptoError

from homeserver.protocol.identifiers import is_valid_key_version
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing.canonical_json import NotCanonical, encode_canonical_loose
from homeserver.protocol.signing.hashes import signing_bytes
from homeserver.protocol.signing.unpadded_base64 import decode_base64, encode_base64

ALGORITHM = "ed25519"
SEED_BYTES = 32
SIGNATURE_BYTES = 64


class BadSignature(ValueError):
    """There is no such signature, or it does not match the object and the key."""


class InvalidSigningKey(ValueError):
    """A signing key, or the file that should hold it, is malformed."""


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A private Ed25519 key. Its representation does not show the secret part."""

    key_id: str
    """`ed25519:` and the key's version."""
    verify_key: str
    """The public key in unpadded Base64."""
    _secret: bytes = field(repr=False)
    """The seed and the public key, as libsodium's `crypto_sign` takes them."""

    @classmethod
    def from_seed(cls, version: str, seed: bytes) -> "SigningKey":
        """The key of a 32-byte seed, as `version` (characters a-z, A-Z, 0-9 and `_`).

        Raises `InvalidSigningKey`.
        """
        if not is_valid_key_version(version):
            raise InvalidSigningKey("a key version holds only letters, digits and underscores")
        try:
            secret = signing.SigningKey(seed)
        except CryptoError as error:
            raise InvalidSigningKey("a seed must have 32 bytes") from error
        public = bytes(secret.verify_key)
        return cls(f"{ALGORITHM}:{version}", encode_base64(public), bytes(secret) + public)

    @property
    def version(self) -> str:
        """The part of the key id after the colon."""
        return self.key_id.partition(":")[2]

    @property
    def seed(self) -> bytes:
        """The secret: 32 bytes."""
        return self._secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """The signature: 64 bytes."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]


def parse_signing_keys(text: str) -> list[SigningKey]:
    """The keys of a signing key file: a line `ed25519 <version> <seed in Base64>` for each.

    Raises `InvalidSigningKey` with the number of the line, without its content.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        match line.split():
            case []:
                continue
            case [algorithm, version, seed] if algorithm == ALGORITHM:
                keys.append(_parse_key(number, version, seed))
            case _:
                raise InvalidSigningKey(f"line {number}: expected `{ALGORITHM} <version> <seed>`")
    return keys


def format_signing_keys(keys: Iterable[SigningKey]) -> str:
    """The content of a signing key file, as `parse_signing_keys` reads it."""
    return "".join(f"{ALGORITHM} {key.version} {encode_base64(key.seed)}\n" for key in keys)


def sign_json(value: Mapping[str, Any], server_name: str, key: SigningKey) -> dict[str, Any]:
    """A copy of the object with this signature added to those that it has.

    `server_name` is the signing entity: a server, or a user id for keys of users.
    Raises `NotCanonical`.
    """
    return add_signature(value, server_name, key.key_id, key.sign(_signed_part(value)))


def verify_signed_json(
    value: Mapping[str, Any],
    server_name: str,
    key_id: str,
    verify_key: str,
    *,
    content: bytes | None = None,
) -> None:
    """Check one signature of an object. `verify_key` is the public key in Base64.

    If given, `content` is the canonical JSON of a member `content` that `value` lacks. It must sort
    before all other members.

    Raises `BadSignature`.

    Spec: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
    """
    signature = _find_signature(value, server_name, key_id)
    try:
        message = _signed_part(value)
    except NotCanonical as error:
        raise BadSignature("the signed object has no canonical form") from error
    if content is not None:
        message = b'{"content":' + content + b"," + message[1:]
    _verify(message, signature, verify_key)


def sign_event(
    version: RoomVersion, pdu: Mapping[str, Any], server_name: str, key: SigningKey
) -> dict[str, Any]:
    """A copy of an event that has its content hash, with this signature added."""
    signature = key.sign(signing_bytes(version, pdu))
    return add_signature(pdu, server_name, key.key_id, signature)


def verify_event_signature(
    version: RoomVersion, pdu: Mapping[str, Any], server_name: str, key_id: str, verify_key: str
) -> None:
    """Check one signature of an event, which may have been redacted. Raises `BadSignature`.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
    """
    signature = _find_signature(pdu, server_name, key_id)
    _verify(signing_bytes(version, pdu), signature, verify_key)


def add_signature(
    value: Mapping[str, Any], server_name: str, key_id: str, signature: bytes
) -> dict[str, Any]:
    """A copy of an object with one more entry in `signatures`."""
    signatures = dict(value.get("signatures", {}))
    signatures[server_name] = {
        **signatures.get(server_name, {}),
        key_id: encode_base64(signature),
    }
    return {**value, "signatures": signatures}


def signature_key_ids(value: Mapping[str, Any], server_name: str) -> list[str]:
    """Ids of the Ed25519 keys in an entity's signatures of an object, not verified."""
    signatures = value.get("signatures")
    own = signatures.get(server_name) if isinstance(signatures, Mapping) else None
    if not isinstance(own, Mapping):
        return []
    return [key_id for key_id in own if key_id.startswith(ALGORITHM + ":")]


def _signed_part(value: Mapping[str, Any]) -> bytes:
    return encode_canonical_loose(
        {name: member for name, member in value.items() if name not in ("signatures", "unsigned")}
    )


def _find_signature(value: Mapping[str, Any], server_name: str, key_id: str) -> bytes:
    if key_id not in signature_key_ids(value, server_name):
        raise BadSignature(f"no signature of {server_name} with {key_id}")
    try:
        return decode_base64(value["signatures"][server_name][key_id])
    except (ValueError, TypeError, AttributeError) as error:
        raise BadSignature(f"the signature of {server_name} is not Base64") from error


def _verify(message: bytes, signature: bytes, verify_key: str) -> None:
    try:
        signing.VerifyKey(decode_base64(verify_key)).verify(message, signature)
    except (CryptoError, ValueError) as error:
        raise BadSignature("the signature does not match") from error


def _parse_key(number: int, version: str, seed: str) -> SigningKey:
    try:
        return SigningKey.from_seed(version, decode_base64(seed))
    except ValueError:
        # Not chained: the cause would put a part of the secret into a traceback.
        raise InvalidSigningKey(f"line {number}: not a key version and a seed") from None
