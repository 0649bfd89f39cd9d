"""Access tokens: where a request carries one, and who is behind it.

The token stands in `Authorization: Bearer`, in the deprecated query parameter `access_token`, or,
for browsers that open a WebSocket and cannot set headers, in a subprotocol entry
`m.token.<base64url of the token>`. Tokens are never logged and never echoed.

Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Sequence
from typing import Protocol

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, GuestAccessForbidden, MissingToken
from homeserver.web.query import parse_query
from homeserver.web.routes import Auth

TOKEN_SUBPROTOCOL = "m.token."


class RequestInfo(Protocol):
    """What an authenticator may want to know of a request beside its token."""

    @property
    def address(self) -> str:
        """The client's IP address as text, or "" where it has none (a unix socket)."""

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None` where it is missing or sent more than once."""


class Authenticator(Protocol):
    """Knows the accounts behind access tokens.

    The answer may be the caller itself where it is in memory: then no coroutine is made. Raises
    `UnknownToken`, `UserLocked` and the like.
    """

    def authenticate(
        self, token: str, request: RequestInfo
    ) -> Requester | Awaitable[Requester]: ...


class SignedRequest(Protocol):
    """What the signature of a request of another server covers."""

    @property
    def method(self) -> bytes: ...

    @property
    def uri(self) -> bytes:
        """Path and query, as they were sent."""

    @property
    def body(self) -> bytes: ...

    @property
    def address(self) -> str:
        """The IP address that it came from."""

    @property
    def authorizations(self) -> list[str]:
        """The values of all `Authorization` headers."""


class ServerAuthenticator(Protocol):
    """Knows the servers behind signed requests.

    Raises `Unauthorized` and `Forbidden`, and `NotJson` for a body that cannot have been signed.
    """

    def check_head(self, request: SignedRequest) -> None:
        """Raise what can be known before the body is there."""

    async def authenticate(self, request: SignedRequest) -> str:
        """The name of the server that sent the request."""


def find_token(
    authorization: Sequence[bytes] | None, query: bytes, subprotocols: Sequence[bytes] | None
) -> str | None:
    """The access token of a request, or `None` where it has none.

    Raises `MissingToken` for a header that is not of the Bearer scheme, and where tokens contradict
    each other: answering `M_UNKNOWN_TOKEN` would make the client drop a session that may be fine.
    """
    tokens = {_bearer_token(value) for value in authorization or ()}
    if b"access_token" in query:
        tokens.update(parse_query(query).get("access_token", ()))
    if subprotocols:
        tokens.update(_subprotocol_tokens(subprotocols))
    if not tokens:
        return None
    if len(tokens) > 1:
        raise MissingToken("The request has more than one access token")
    token = tokens.pop()
    if not token:
        raise MissingToken("The access token is empty")
    return token


def check_caller(auth: Auth, caller: Requester) -> Requester:
    """Raise unless a caller may use a route with this `auth`."""
    if caller.is_guest and auth is Auth.USER:
        raise GuestAccessForbidden("Guests may not do this")
    if auth is Auth.ADMIN and not caller.is_admin:
        raise Forbidden("Only administrators of this server may do this")
    return caller


def _bearer_token(value: bytes) -> str:
    scheme, _, token = value.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise MissingToken("The Authorization header has to be of the form `Bearer TOKEN`")
    try:
        return token.strip().decode("ascii")
    except UnicodeDecodeError:
        raise MissingToken("The access token has characters that tokens never have") from None


def _subprotocol_tokens(values: Sequence[bytes]) -> list[str]:
    entries = ",".join(value.decode("latin-1") for value in values).split(",")
    tokens = []
    for entry in map(str.strip, entries):
        if entry.startswith(TOKEN_SUBPROTOCOL):
            encoded = entry.removeprefix(TOKEN_SUBPROTOCOL)
            try:
                raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
                tokens.append(raw.decode("ascii"))
            except (binascii.Error, ValueError):
                raise MissingToken("The subprotocol entry holds no base64url token") from None
    return tokens
