"""Upgrades of HTTP requests to WebSockets: what a handler returns, and the checks before it.

A route with `websocket=True` is found, authenticated and limited like any other, so that all errors
are ordinary responses before the connection switches protocols. Its handler returns an `Upgrade`
with the protocol object that takes over (`websocket.py`).

Spec: https://www.rfc-editor.org/rfc/rfc6455#section-4.2
"""

import binascii
from base64 import b64decode
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from homeserver.protocol.errors import InvalidParam, MatrixError
from homeserver.web.request import Request

if TYPE_CHECKING:
    from homeserver.web.websocket import Socket, SocketFactory

KEY_BYTES = 16


class UpgradeRequired(MatrixError):
    """The endpoint supports WebSocket only."""

    errcode, status = "M_UNRECOGNIZED", 426

    def headers(self) -> dict[str, str]:
        return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}


class Upgrade(msgspec.Struct, frozen=True):
    """The result of a handler that hands the connection over to `socket`.

    `subprotocols` are those that the endpoint supports, best first; the client must offer one of
    them. An empty tuple means that the endpoint has none.
    """

    factory: "SocketFactory"
    socket: "Socket"
    subprotocols: Sequence[str] = ()

    def hand_over(self, request: Request) -> None:
        """Hand a connection over. Raises `InvalidParam` if no subprotocol matches."""
        from homeserver.web.websocket import upgrade  # the handler has made a socket of it

        upgrade(request, self)


def check_upgrade(request: Request) -> None:
    """Raise `UpgradeRequired` or `InvalidParam` unless this is a valid opening handshake."""
    if "websocket" not in header_entries(request, b"Upgrade", lower=True):
        raise UpgradeRequired("This endpoint is a WebSocket: send an opening handshake")
    if "upgrade" not in header_entries(request, b"Connection", lower=True):
        raise InvalidParam("A WebSocket handshake needs `Connection: Upgrade`")
    if request.header(b"Sec-WebSocket-Version") != "13":
        raise UpgradeRequired("The version of the WebSocket protocol must be 13")
    key = request.header(b"Sec-WebSocket-Key") or ""
    try:
        length = len(b64decode(key, validate=True))
    except binascii.Error:
        length = 0
    if length != KEY_BYTES:
        raise InvalidParam("Sec-WebSocket-Key must be the base64 of 16 bytes")


def header_entries(request: Request, name: bytes, *, lower: bool = False) -> list[str]:
    """The entries of a header that is a list."""
    values = request.fields.values(name.lower())
    text = ",".join(value.decode("latin-1") for value in values)
    return [entry.strip() for entry in (text.lower() if lower else text).split(",")]
