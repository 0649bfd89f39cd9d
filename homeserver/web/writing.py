"""Immediate writes to a connection, without another reactor iteration.

Twisted's transports put data into a buffer, have the reactor watch for the socket to be writable,
and then write. A socket with an empty buffer nearly always is. To write first and to buffer only
the rest saves two system calls and a reactor iteration for each response, and the first of many
readers does not wait until all are served.
"""

from typing import Any

from twisted.internet.tcp import Connection


def write_now(transport: Any, data: bytes) -> None:
    """Like `transport.write(data)`, but a TCP socket accepts what it can before this returns.

    Data in its buffer are sent first. For other transports, such as those of TLS, this is an
    ordinary write.
    """
    if isinstance(transport, Connection) and _is_empty(transport):
        written = transport.writeSomeData(data)
        # If the connection is lost, the reactor notices it and notifies the protocol.
        if isinstance(written, int):
            if written < len(data):
                transport.write(data[written:])
            return
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
