"""Published keys of a server: its signed response, and until when each key is valid.

The keys in a response must have signed it, as proof that the server has them. A validity beyond
seven days is cut off, so that a stolen key does not stay valid for long.

Spec: https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from homeserver.protocol.identifiers import is_valid_key_version
from homeserver.protocol.signing.signatures import (
    ALGORITHM,
    BadSignature,
    signature_key_ids,
    verify_signed_json,
)
from homeserver.protocol.signing.unpadded_base64 import decode_base64

MAX_VALIDITY_MS = 7 * 86_400_000
MAX_KEYS = 100  # in one response, of the current and of the old keys each
MAX_TS = 2**53 - 1
KEY_BYTES = 32


class InvalidServerKeys(ValueError):
    """The response is not a valid key response of a server, or was tampered with."""


class VerifyKey(msgspec.Struct, frozen=True):
    """A public key in Base64, valid for signatures up to `valid_until_ts` (milliseconds).

    An old key is valid for events alone, and will not become valid again.
    """

    key_id: str
    verify_key: str
    valid_until_ts: int
    is_old: bool

    def is_valid_at(self, ts: int) -> bool:
        """Whether the key may have signed something at this time."""
        return ts <= self.valid_until_ts


class ServerKeys(msgspec.Struct, frozen=True):
    """The keys of a server. `valid_until_ts` is that of the response itself, cut off."""

    server_name: str
    keys: tuple[VerifyKey, ...]
    valid_until_ts: int
    response: Mapping[str, Any]


def parse_server_keys(response: Any, server_name: str, now_ms: int) -> ServerKeys:
    """The keys in a response that was received at `now_ms`, directly or through a notary.

    Raises `InvalidServerKeys`. Keys of unknown algorithms are ignored.
    """
    if not isinstance(response, dict) or response.get("server_name") != server_name:
        raise InvalidServerKeys("the response is about another server")
    valid_until = response.get("valid_until_ts")
    if type(valid_until) is not int or not 0 <= valid_until <= MAX_TS:
        raise InvalidServerKeys("valid_until_ts is not a time")
    valid_until = min(valid_until, now_ms + MAX_VALIDITY_MS)
    current = dict(_keys_in(response, "verify_keys"))
    _check_signatures(response, server_name, current)
    keys = [VerifyKey(key_id, key, valid_until, is_old=False) for key_id, key in current.items()]
    old = response.get("old_verify_keys")
    for key_id, key in _keys_in(response, "old_verify_keys"):
        expired = old[key_id].get("expired_ts") if isinstance(old, dict) else None
        if key_id not in current and type(expired) is int and 0 <= expired <= MAX_TS:
            keys.append(VerifyKey(key_id, key, min(expired, now_ms), is_old=True))
    return ServerKeys(server_name, tuple(keys), valid_until, response)


def _keys_in(response: Mapping[str, Any], member: str) -> Iterator[tuple[str, str]]:
    keys = response.get(member, {})
    if not isinstance(keys, dict) or len(keys) > MAX_KEYS:
        raise InvalidServerKeys(f"{member} is not an object, or too large")
    for key_id, entry in keys.items():
        algorithm, _, version = key_id.partition(":")
        if algorithm != ALGORITHM or not is_valid_key_version(version):
            continue
        key = entry.get("key") if isinstance(entry, dict) else None
        if not isinstance(key, str) or not _is_key(key):
            raise InvalidServerKeys(f"{key_id} is not a key")
        yield key_id, key


def _is_key(text: str) -> bool:
    try:
        return len(decode_base64(text)) == KEY_BYTES
    except ValueError:
        return False


def _check_signatures(
    response: Mapping[str, Any], server_name: str, current: Mapping[str, str]
) -> None:
    """Check that all signatures of current keys are right, and that there is one."""
    signed_by = [key_id for key_id in signature_key_ids(response, server_name) if key_id in current]
    if not signed_by:
        raise InvalidServerKeys("none of the keys has signed the response")
    for key_id in signed_by:
        try:
            verify_signed_json(response, server_name, key_id, current[key_id])
        except BadSignature as error:
            raise InvalidServerKeys(f"{key_id}: {error}") from error
