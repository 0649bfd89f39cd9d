"""Sign-ins in progress, which only the browser stores: each in a cookie that this server sealed.

So strangers who begin sign-ins occupy no memory here, and a sign-in can only be completed by the
browser that began it: nobody can make a user complete somebody else's (cross-site request forgery).

One browser can have several at a time, in the cookies of a few slots. More could fill the head of
its requests, and any web page can have a browser begin sign-ins.

Spec: https://spec.matrix.org/v1.19/client-server-api/#handling-the-callback-from-the-authentication-server
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import Enum
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import urlsplit

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from homeserver.accounts.sessions.secret_tokens import new_token
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import NotFound
from homeserver.protocol.single_sign_on.claims import Identity

LIFETIME_SECONDS = 900
SLOTS = 6
PATH = "/_matrix/sso/"
TOO_OLD = (
    "This sign-in is unknown here: it is too old, or was begun in another browser. Begin again"
)


class Purpose(Enum):
    """What a sign-in is for, which says what its target is."""

    LOGIN = "login"  # the redirectUrl of a client, which gets a login token
    BROWSER = "browser"  # a path on this server, for a browser that gets a session
    CONFIRMATION = "confirmation"  # a session of user-interactive authentication


class SignInAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sign-in that has begun; with the `identity` once the provider has confirmed it."""

    state: str
    provider: str
    purpose: Purpose
    target: str
    expires_ms: int
    nonce: str
    verifier: str
    identity: Identity | None = None


class SignInAttempts:
    """Begins attempts and reads their cookies. `secret` seals the cookies.

    `base_path` is what browsers have before the paths of this server.
    """

    def __init__(self, secret: bytes, clock: Clock, public_baseurl: str) -> None:
        self._box = SecretBox(sha256(b"single sign-on\0" + secret).digest())
        self._clock = clock
        parts = urlsplit(public_baseurl)
        self.base_path = parts.path.rstrip("/")
        is_secure = parts.scheme == "https"
        self._prefix = "__Secure-sso_" if is_secure else "sso_"
        path = self.base_path + PATH
        self._attributes = f"Path={path}; HttpOnly; SameSite=Lax" + ("; Secure" * is_secure)

    def new(self, provider: str, purpose: Purpose, target: str) -> SignInAttempt:
        """A new attempt."""
        expires_ms = now_ms(self._clock) + LIFETIME_SECONDS * 1000
        return SignInAttempt(
            new_token(), provider, purpose, target, expires_ms, new_token(), new_token()
        )

    def cookie(self, attempt: SignInAttempt) -> str:
        """The value of the `Set-Cookie` header with which the browser stores an attempt."""
        sealed = self._box.encrypt(msgspec.json.encode(attempt))
        value = urlsafe_b64encode(bytes(sealed)).decode().rstrip("=")
        return (
            f"{self._name(attempt.state)}={value}; Max-Age={LIFETIME_SECONDS}; {self._attributes}"
        )

    def end(self, state: str) -> str:
        """The value of the `Set-Cookie` header with which the browser forgets an attempt."""
        return f"{self._name(state)}=; Max-Age=0; {self._attributes}"

    def find(self, state: str, cookies: str | None) -> SignInAttempt:
        """The attempt of this `state`, given the `Cookie` header. Raises `NotFound`."""
        name = self._name(state)
        for pair in (cookies or "").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name and (attempt := self._open(value)) is not None:
                is_same = compare_digest(attempt.state.encode(), state.encode("utf-8", "replace"))
                if is_same and attempt.expires_ms > now_ms(self._clock):
                    return attempt
        raise NotFound(TOO_OLD)

    def _open(self, value: str) -> SignInAttempt | None:
        try:
            sealed = urlsafe_b64decode(value + "=" * (-len(value) % 4))
            return msgspec.json.decode(self._box.decrypt(sealed), type=SignInAttempt)
        except (ValueError, CryptoError):  # all others, with what msgspec raises, are `ValueError`s
            return None

    def _name(self, state: str) -> str:
        return f"{self._prefix}{sha256(state.encode('utf-8', 'replace')).digest()[0] % SLOTS}"
