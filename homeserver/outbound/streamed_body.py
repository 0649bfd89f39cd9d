"""Bodies of responses as streams, for those that are too large for memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from homeserver.concurrency.byte_stream import ByteStream
from homeserver.outbound.http_client import OutboundError


@contextmanager
def streamed_body(response: IResponse, *, marks_its_end: bool = False) -> Iterator[ByteStream]:
    """The body of a response, while it arrives.

    A body that ends with its connection may be incomplete, which is an error unless the content
    itself `marks_its_end`. If the context ends before the body, the connection is closed.
    """
    body = _StreamedBody(response, marks_its_end=marks_its_end)
    response.deliverBody(body)
    try:
        yield body.stream
    finally:
        body.close()


class _StreamedBody(Protocol):
    def __init__(self, response: IResponse, *, marks_its_end: bool) -> None:
        length = response.length if isinstance(response.length, int) else None
        self.stream = ByteStream(length, self._pause, self._resume)
        self._marks_its_end = marks_its_end
        self._has_ended = False

    def dataReceived(self, data: bytes) -> None:
        self.stream.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._has_ended = True
        if reason.check(ResponseDone) or (self._marks_its_end and reason.check(PotentialDataLoss)):
            self.stream.end()
        else:
            error = OutboundError(f"the body is incomplete: {reason.getErrorMessage()}")
            self.stream.fail(error)

    def close(self) -> None:
        """Close the connection, unless the body has ended."""
        if not self._has_ended and self.transport is not None:
            self.stream.fail(OutboundError("the rest of the body is not needed"))
            self.transport.loseConnection()

    def _pause(self) -> None:
        transport: Any = self.transport
        if not self._has_ended:
            transport.pauseProducing()

    def _resume(self) -> None:
        transport: Any = self.transport
        if not self._has_ended:
            transport.resumeProducing()
