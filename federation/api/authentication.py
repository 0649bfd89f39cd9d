"""Authentication of requests: the server that a request names and is signed by.

Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from federation.keys.keyring import Keyring
from federation.transport.destination_health import DestinationHealth
from federation.transport.permitted_servers import PermittedServers
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    MatrixError,
    NotJson,
    Unauthorized,
)
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.signing.signatures import BadSignature
from homeserver.protocol.signing.x_matrix import (
    Authorization,
    InvalidAuthorization,
    parse_authorization,
    request_object,
)
from homeserver.web.addresses import network_of
from homeserver.web.authentication import SignedRequest
from homeserver.web.bodies import decode_body

MAX_HEADERS = 5

_DECODER = msgspec.json.Decoder()


class ServerAuthentication:
    """Authenticates the requests of other servers to this one."""

    def __init__(
        self,
        server_name: str,
        keyring: Keyring,
        permitted: PermittedServers,
        destinations: DestinationHealth,
    ) -> None:
        self._server_name = server_name
        self._keyring = keyring
        self._permitted = permitted
        self._destinations = destinations

    def check_head(self, request: SignedRequest) -> None:
        """Check what needs no body. Raises as `authenticate` does."""
        self._check_names(_parse_headers(request.authorizations))

    async def authenticate(self, request: SignedRequest) -> str:
        """The server that sent the request.

        Raises `Unauthorized`, `Forbidden` for a server that the configuration denies,
        `InvalidParam` for an invalid server name, `NotJson`, and `LimitExceeded` where too many
        requests wait for keys.
        """
        headers = _parse_headers(request.authorizations)
        origin = self._check_names(headers)
        await self._check_signatures(origin, request, headers)
        self._destinations.received_from(origin)
        return origin

    async def _check_signatures(
        self, origin: str, request: SignedRequest, headers: list[Authorization]
    ) -> None:
        """Raise `Unauthorized` unless the origin has signed the request."""
        verify = partial(
            self._keyring.verify_json,
            origin,
            despite_backoff=True,
            address=network_of(request.address),
        )
        failure: MatrixError
        try:
            content = decode_body(_DECODER, request.body) if request.body else None
            await verify(_signed(request, headers, content))
        except BadSignature as error:
            failure = Unauthorized(f"The request is not signed by {origin}: {error}")
        except (BadJson, NotJson) as error:
            failure = error
        else:
            return
        # One element of it, perhaps written by a user, may be a value that this server cannot hold,
        # while the rest is valid. A server that sends canonical JSON has signed these very bytes.
        with suppress(UnicodeDecodeError, BadSignature):
            if request.body.decode():
                await verify(_signed(request, headers, None), content=request.body)
                return
        raise failure

    def _check_names(self, headers: list[Authorization]) -> str:
        """The origin, which all headers must agree on, as on the destination."""
        if len({(header.origin, header.destination) for header in headers}) > 1:
            raise Unauthorized("The Authorization headers contradict each other")
        origin, destination = headers[0].origin, headers[0].destination
        if not is_valid_server_name(origin):
            raise InvalidParam("The origin is not a server name")
        # Old servers do not name the destination.
        if destination is not None and destination != self._server_name:
            raise Unauthorized("The request is for another server")
        if origin == self._server_name:
            raise Unauthorized("The request claims to be from this server itself")
        if not self._permitted.permits(origin):
            raise Forbidden("This server does not federate with yours")
        return origin


def _parse_headers(values: list[str]) -> list[Authorization]:
    if not values:
        raise Unauthorized("The request has no Authorization header")
    if len(values) > MAX_HEADERS:
        raise Unauthorized("The request has too many Authorization headers")
    try:
        return [parse_authorization(value) for value in values]
    except InvalidAuthorization as error:
        raise Unauthorized(str(error)) from None


def _signed(request: SignedRequest, headers: list[Authorization], content: Any) -> dict[str, Any]:
    """The object that the sender has signed, with its signatures."""
    first = headers[0]
    signed = request_object(
        request.method.decode("latin-1"),
        request.uri.decode("latin-1"),
        first.origin,
        first.destination,
        content,
    )
    signatures = {header.key_id: header.signature for header in headers}
    return {**signed, "signatures": {first.origin: signatures}}
