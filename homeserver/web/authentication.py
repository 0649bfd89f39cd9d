"""Access tokens: finding the token in a request, and checking its user.

The token is in `Authorization: Bearer`, in the deprecated query parameter `access_token`, or, for
browsers that open a WebSocket and cannot set headers, in a subprotocol entry `m.token.<base64url of
the token>`. Tokens are never logged and never echoed.

Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, GuestAccessForbidden, MissingToken
from homeserver.web.query import parse_query
from homeserver.web.routes import Auth

TOKEN_SUBPROTOCOL = "m.token."


class RequestInfo(Protocol):
    """The parts of a request that an authenticator may need besides the token."""

    @property
    def address(self) -> str:
        """The client's IP address as text, or "" if it has none (a unix socket)."""

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None` if it is missing or sent more than once."""

    @property
    def parameters(self) -> Mapping[str, list[str]]:
        """The query parameters."""


class Authenticator(Protocol):
    """A mapping from access tokens to accounts.

    It may return the caller directly if that is cached: then no coroutine is made. Raises
    `UnknownToken`, `UserLocked` and the like.
    """

    def authenticate(
        self, token: str, request: RequestInfo
    ) -> Requester | Awaitable[Requester]: ...


class KnownParties(Protocol):
    """The parties that rate limits know by their tokens, where a route needs no token."""

    def party_of(self, token: str) -> Requester | None:
        """The application service that a token belongs to, as the requester that is counted."""


class SignedRequest(Protocol):
    """The parts of a server's request that its signature covers."""

    @property
    def method(self) -> bytes: ...

    @property
    def uri(self) -> bytes:
        """Path and query, not decoded."""

    @property
    def body(self) -> bytes: ...

    @property
    def address(self) -> str:
        """The IP address of the sender."""

    @property
    def authorizations(self) -> list[str]:
        """The values of all `Authorization` headers."""


class ServerAuthenticator(Protocol):
    """A verifier of the signed requests of servers.

    Raises `Unauthorized` and `Forbidden`, and `NotJson` for a body that cannot have been signed.
    """

    def check_head(self, request: SignedRequest) -> None:
        """Check the head of a request, before the body has arrived."""

    async def authenticate(self, request: SignedRequest) -> str:
        """The name of the server that sent the request."""


def find_token(
    authorization: Sequence[bytes] | None, query: bytes, subprotocols: Sequence[bytes] | None
) -> str | None:
    """The access token of a request, or `None` if it has none.

    Raises `MissingToken` for a header that is not of the Bearer scheme, and for tokens that
    contradict each other: `M_UNKNOWN_TOKEN` would make the client drop a session that may be valid.
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
    """Raise an error unless a caller may use a route with this `auth`."""
    if caller.is_guest and auth is Auth.USER:
        raise GuestAccessForbidden("Guests may not do this")
    if auth is Auth.ADMIN and not caller.is_admin:
        raise Forbidden("Only administrators of this server may do this")
    return caller


def _bearer_token(value: bytes) -> str:
    scheme, _, token = value.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise MissingToken("The Authorization header must have the form `Bearer TOKEN`")
    try:
        return token.strip().decode("ascii")
    except UnicodeDecodeError:
        raise MissingToken("The access token contains invalid characters") from None


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
                raise MissingToken(
                    "The subprotocol entry does not contain a base64url token"
                ) from None
    return tokens
