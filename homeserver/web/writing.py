"""Writes to a connection: at once, without another reactor iteration, or as fast as a client reads.

Twisted's transports put data into a buffer, have the reactor watch for the socket to be writable,
and then write. A socket with an empty buffer nearly always is. To write first and to buffer only
the rest saves two system calls and a reactor iteration for each response, and the first of many
readers does not wait until all are served.

A response that may have hundreds of megabytes never exists as a whole: the next part is made when
the client has read the former ones but for what fits into the buffers of its connection.
"""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer


def write_now(transport: Any, data: bytes) -> None:
    """Like `transport.write(data)`, but a TCP socket accepts what it can before this returns.

    Data in its buffer are sent first. For other transports, such as those of TLS, this is an
    ordinary write.
    """
    if isinstance(transport, Connection) and _is_empty(transport):
        try:
            written = transport.socket.send(data)
        except OSError:
            written = 0  # the socket is full, or the connection is lost, which the reactor notices
        if written < len(data):
            transport.write(data[written:])
    else:
        transport.write(data)


def _is_empty(transport: Any) -> bool:
    """Whether the transport is open for writing, and its buffer is empty."""
    return (
        transport.connected
        and not transport.disconnecting
        and not transport._writeDisconnected
        and not transport._tempDataLen
        and len(transport.dataBuffer) == transport.offset
    )


@implementer(IPushProducer)
class Pacer:
    """A producer that knows whether its connection takes more data now, and waits until it does."""

    def __init__(self) -> None:
        self._is_paused = False
        self._waiting: Deferred[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether the buffers of the connection are full."""
        return self._is_paused

    async def resumed(self) -> None:
        """Wait until the buffers have room, or the connection has ended."""
        self._waiting = Deferred()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        if self._waiting is not None:
            self._waiting.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()
