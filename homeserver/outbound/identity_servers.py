"""Identity servers: publishing addresses of users there, and unpublishing them.

Users choose the identity server, so it is not trusted: the client refuses private addresses,
timeouts are short, and responses are untrusted data.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from twisted.logger import Logger

from homeserver.outbound.http_client import OutboundClient, OutboundError, OutboundResponse
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.x_matrix import authorize
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.storage.accounts.identity_bindings import IdentityBinding

TIMEOUT_SECONDS = 10.0
MAX_RESPONSE_BYTES = 65_536  # bytes
MAX_TEXT = 500  # characters of an error that is passed on to the client
API = "/_matrix/identity/v2"
# With one of these errcodes the client would assume that its own session had ended, and log out.
LOCAL_SESSION_ERRCODES = ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_LOCKED")
ResponseType = TypeVar("ResponseType", bound=msgspec.Struct)
log = Logger()


class Bound(msgspec.Struct):
    """An identity server's response for an address that it has published."""

    medium: str
    address: str


class Validity(msgspec.Struct):
    """The validity of a key."""

    valid: bool


class IdentityServerError(msgspec.Struct):
    """A standard error response."""

    errcode: str
    error: str = ""


class IdentityServerRefused(MatrixError):
    """An error of an identity server, passed on to the client."""

    def __init__(self, status: int, remote: IdentityServerError) -> None:
        super().__init__(remote.error[:MAX_TEXT] or "The identity server refused")
        is_local = remote.errcode in LOCAL_SESSION_ERRCODES or not remote.errcode.startswith("M_")
        self.errcode = "M_UNAUTHORIZED" if is_local else remote.errcode[:MAX_TEXT]
        self.status = status if status in range(400, 500) and status != 401 else 403


class IdentityServerFailed(MatrixError):
    """There was no valid response. The client chose the server."""

    errcode, status = "M_UNKNOWN", 400


class IdentityServers:
    """A client of identity servers, for requests of users and of this server."""

    def __init__(self, outbound: OutboundClient, server_name: str, key: SigningKey) -> None:
        self._outbound = outbound
        self._server_name = server_name
        self._key = key

    async def bind(
        self, id_server: str, access_token: str, named: ThreepidCredentials, user_id: str
    ) -> tuple[str, str]:
        """Publish the address of a session there; returns medium and address.

        Raises `IdentityServerRefused` and `IdentityServerFailed`.
        """
        body = {"sid": named.sid, "client_secret": named.client_secret, "mxid": user_id}
        bound = await self.ask(id_server, access_token, "3pid/bind", body, response_type=Bound)
        return bound.medium, bound.address

    async def ask(
        self,
        id_server: str,
        access_token: str,
        endpoint: str,
        body: Mapping[str, object] | None,
        *,
        response_type: type[ResponseType],
    ) -> ResponseType:
        """Send a user's request to an endpoint, by GET if there is no body; returns the response.

        Raises `IdentityServerRefused` and `IdentityServerFailed`.
        """
        if not access_token.isascii() or not access_token.isprintable():
            raise IdentityServerRefused(
                403, IdentityServerError("M_UNAUTHORIZED", "Not an access token")
            )
        content = None if body is None else encode_canonical(body)
        response = await self._send(
            id_server, f"{API}/{endpoint}", content, f"Bearer {access_token}"
        )
        if response.status != 200:
            raise _error_in(response)
        try:
            return msgspec.json.decode(response.body, type=response_type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise IdentityServerFailed("The identity server sent an invalid response") from None

    async def unbind(self, binding: IdentityBinding) -> bool:
        """Unpublish an address; false if the identity server does not support that.

        Raises `IdentityServerRefused` and `IdentityServerFailed`.
        """
        path = f"{API}/3pid/unbind"
        body = {
            "mxid": binding.user_id,
            "threepid": {"medium": binding.medium, "address": binding.address},
        }
        content = encode_canonical(body)
        authorization = authorize(
            "POST", path, self._server_name, binding.id_server, content, self._key
        )
        response = await self._send(binding.id_server, path, content, str(authorization))
        if response.status == 200:
            return True
        if response.status in (400, 404, 501) and _matrix_error(response) is None:
            return False
        raise _error_in(response)

    async def is_key_valid(self, url: str, public_key: str) -> bool:
        """Whether a key has not been revoked, according to a URL of an identity server.

        Raises `IdentityServerFailed` if the response does not say so.

        Spec: https://spec.matrix.org/v1.19/identity-service-api/#key-management
        """
        joint = "&" if "?" in url else "?"
        try:
            response = await self._outbound.request(
                "GET",
                f"{url}{joint}{urlencode({'public_key': public_key})}",
                max_body=MAX_RESPONSE_BYTES,
                timeout=TIMEOUT_SECONDS,
            )
            validity = msgspec.json.decode(response.body, type=Validity)
        except (OutboundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warn("{url} does not say whether a key is valid: {error}", url=url, error=error)
            raise IdentityServerFailed("The identity server did not check its key") from error
        return response.status == 200 and validity.valid

    async def _send(
        self, id_server: str, path: str, content: bytes | None, authorization: str
    ) -> OutboundResponse:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        try:
            return await self._outbound.request(
                "GET" if content is None else "POST",
                f"https://{id_server}{path}",
                headers=headers,
                body=content,
                max_body=MAX_RESPONSE_BYTES,
                timeout=TIMEOUT_SECONDS,
            )
        except OutboundError as error:
            log.warn("{server} does not respond: {error}", server=id_server, error=error)
            raise IdentityServerFailed("The identity server does not respond") from None


def _error_in(response: OutboundResponse) -> MatrixError:
    """The client's error for a response that is not a success."""
    remote = _matrix_error(response)
    if remote is None:
        return IdentityServerFailed(f"The identity server responded with status {response.status}")
    return IdentityServerRefused(response.status, remote)


def _matrix_error(response: OutboundResponse) -> IdentityServerError | None:
    try:
        return msgspec.json.decode(response.body, type=IdentityServerError)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
