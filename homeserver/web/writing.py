"""Writing to a connection at once, in place of in the next turn of the reactor.

Twisted's transports take what is written into a buffer, have the reactor watch for the socket to be
writable, and write when it says so. A socket whose buffer is empty nearly always is. To write first
and to ask only where something is left over saves two system calls and a turn of the reactor for
each answer, and the first of many readers does not wait until all are served.
"""

from typing import Any

from twisted.internet.tcp import Connection


def write_now(transport: Any, data: bytes) -> None:
    """As `transport.write(data)`, but what a TCP socket takes is written before this returns.

    What is in its buffer already goes first. Other transports, such as those of TLS, write as ever.
    """
    if isinstance(transport, Connection) and _is_empty(transport):
        written = transport.writeSomeData(data)
        # Where the connection is lost, the reactor finds out by itself, and tells everybody.
        if isinstance(written, int):
            if written < len(data):
                transport.write(data[written:])
            return
    transport.write(data)


def _is_empty(transport: Any) -> bool:
    """Whether the transport is open for writing, and nothing waits to be written."""
    return (
        transport.connected
        and not transport.disconnecting
        and not transport._writeDisconnected
        and not transport._tempDataLen
        and len(transport.dataBuffer) == transport.offset
    )
