"""The keys of this server: those that it signs with, and those that it has signed with before.

What is published is signed anew every hour, so that it is always valid for at least 23 more.

Spec: https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.protocol.signing.server_keys import VerifyKey
from homeserver.protocol.signing.signatures import SigningKey, sign_json

VALIDITY_MS = 86_400_000
RENEW_SECONDS = 3_600.0


class OldKey(Protocol):
    """A key that this server has signed with, up to `expired_ts` (milliseconds)."""

    @property
    def key_id(self) -> str: ...

    @property
    def key(self) -> str:
        """The public key in Base64."""

    @property
    def expired_ts(self) -> int: ...


class OwnKeys:
    """Publishes the keys. Requests and events are signed with the first of `keys`."""

    def __init__(
        self, server_name: str, keys: Sequence[SigningKey], old_keys: Sequence[OldKey], clock: Clock
    ) -> None:
        self.server_name = server_name
        self._keys = keys
        self._old_keys = old_keys
        self._clock = clock
        self._published: Mapping[str, Any] = {}
        self._renew_at = 0.0

    def published(self) -> Mapping[str, Any]:
        """What `/_matrix/key/v2/server` answers."""
        now = self._clock.seconds()
        valid_until_ms = int(wall_seconds(self._clock) * 1000) + VALIDITY_MS
        if now >= self._renew_at:
            self._renew_at = now + RENEW_SECONDS
            self._published = self.sign(
                {
                    "server_name": self.server_name,
                    "valid_until_ts": valid_until_ms,
                    "verify_keys": {key.key_id: {"key": key.verify_key} for key in self._keys},
                    "old_verify_keys": {
                        old.key_id: {"key": old.key, "expired_ts": old.expired_ts}
                        for old in self._old_keys
                    },
                }
            )
        return self._published

    def sign(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of an object with signatures of all current keys added to those that it has."""
        signed = dict(value)
        for key in self._keys:
            signed = sign_json(signed, self.server_name, key)
        return signed

    def find(self, key_id: str) -> VerifyKey | None:
        """The public part of a key of this server, current or old."""
        for key in self._keys:
            if key.key_id == key_id:
                end = int(wall_seconds(self._clock) * 1000) + VALIDITY_MS
                return VerifyKey(key_id, key.verify_key, end, is_old=False)
        for old in self._old_keys:
            if old.key_id == key_id:
                return VerifyKey(key_id, old.key, old.expired_ts, is_old=True)
        return None
