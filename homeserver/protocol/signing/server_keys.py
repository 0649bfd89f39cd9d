"""Keys that a server publishes: what its signed answer says, and until when each key is valid.

The answer must be signed by the keys that it names, as whoever publishes a key must have it. What
it promises beyond seven days is cut off, so that a stolen key cannot be made to last.

Spec: https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from homeserver.protocol.identifiers import is_valid_key_version
from homeserver.protocol.signing.signatures import (
    ALGORITHM,
    BadSignature,
    signature_key_ids,
    verify_signed_json,
)
from homeserver.protocol.signing.unpadded_base64 import decode_base64

MAX_VALIDITY_MS = 7 * 86_400_000
MAX_KEYS = 100  # in one answer, of those that are current and of those that are old
MAX_TS = 2**53 - 1
KEY_BYTES = 32


class InvalidServerKeys(ValueError):
    """The answer is not one that a server gives about its keys, or was tampered with."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key in Base64, valid for what was signed up to `valid_until_ts` (milliseconds).

    An old key is valid for events alone, and will not become valid again.
    """

    key_id: str
    verify_key: str
    valid_until_ts: int
    is_old: bool

    def is_valid_at(self, ts: int) -> bool:
        """Whether something that was signed at this time may bear a signature of the key."""
        return ts <= self.valid_until_ts


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What a server publishes. `valid_until_ts` is that of the answer itself, cut off."""

    server_name: str
    keys: tuple[VerifyKey, ...]
    valid_until_ts: int
    response: Mapping[str, Any]


def parse_server_keys(response: Any, server_name: str, now_ms: int) -> ServerKeys:
    """The keys in an answer that came `now_ms`, whoever passed it on. Raises `InvalidServerKeys`.

    Keys of algorithms that nobody knows are passed over.
    """
    if not isinstance(response, dict) or response.get("server_name") != server_name:
        raise InvalidServerKeys("the answer is about another server")
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
    """All signatures of current keys must be right, and there must be one."""
    signed_by = [key_id for key_id in signature_key_ids(response, server_name) if key_id in current]
    if not signed_by:
        raise InvalidServerKeys("none of the keys has signed the answer")
    for key_id in signed_by:
        try:
            verify_signed_json(response, server_name, key_id, current[key_id])
        except BadSignature as error:
            raise InvalidServerKeys(f"{key_id}: {error}") from error
