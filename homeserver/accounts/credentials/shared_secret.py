"""Registration by a shared secret: for the tools of administrators, which create users in bulk.

The tool proves the secret with an HMAC over a nonce of this server and the requested account. The
nonce carries its own proof of age and origin, so that any process can check it without storing it;
using one twice gains nothing, since a user id is assigned only once.
"""

import hmac
import secrets
from hashlib import sha1, sha256

import msgspec

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import Forbidden, MatrixError

NONCE_LIFE_MS = 60_000


class UnknownNonce(MatrixError):
    """The nonce is not from this server, or too old."""

    errcode, status = "M_UNKNOWN", 400


class SharedSecretRequest(msgspec.Struct):
    """A requested account, and the proof of the secret."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None
    displayname: str | None = None

    def signed_text(self) -> bytes:
        """The bytes that the HMAC signs."""
        parts = [self.nonce, self.username, self.password, "admin" if self.admin else "notadmin"]
        if self.user_type:
            parts.append(self.user_type)
        return "\0".join(parts).encode()


class SharedSecret:
    """Issues nonces, and checks proofs of the secret."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._secret = secret.encode()
        self._clock = clock

    def new_nonce(self) -> str:
        """A nonce that is valid for a minute."""
        text = f"{now_ms(self._clock) + NONCE_LIFE_MS}.{secrets.token_hex(16)}"
        return f"{text}.{self._seal(text)}"

    def check(self, request: SharedSecretRequest) -> None:
        """Raise `UnknownNonce` or `Forbidden` unless the request proves the secret."""
        text, _, seal = request.nonce.rpartition(".")
        if not hmac.compare_digest(self._seal(text).encode(), seal.encode()):
            raise UnknownNonce("Unrecognised nonce")
        if int(text.partition(".")[0]) < now_ms(self._clock):
            raise UnknownNonce("The nonce has expired")
        expected = hmac.new(self._secret, request.signed_text(), sha1).hexdigest()
        if not hmac.compare_digest(expected.encode(), request.mac.lower().encode()):
            raise Forbidden("HMAC incorrect")

    def _seal(self, text: str) -> str:
        return hmac.new(self._secret, b"nonce\0" + text.encode(), sha256).hexdigest()
