"""Subscriptions to connections of sliding sync: responses that are sent without a request for each.

To `SlidingSync` a subscription is a client that polls: it asks for the next response when the
client has acknowledged the one before. So at most one response of a connection is unacknowledged,
and when the socket is lost, the client continues from its `pos`, whether that response arrived or
not. Nothing is queued for a client that reads slowly: what it misses comes in one response.

Spec: MSC4186
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError, Unavailable, UserLimitExceeded
from homeserver.protocol.proposals.unstable_names import STREAM_ERRORS
from homeserver.protocol.sliding_sync.request import SlidingSyncRequest, UnknownPos
from homeserver.protocol.sliding_sync.response import Form, SlidingSyncResponse
from homeserver.sync.subscription import UpdateSink

MAX_SUBSCRIPTIONS = 10  # of one client
WAIT_SECONDS = 60.0  # after which a connection notes how far it is, without a response

_encode = msgspec.json.Encoder().encode


class ConnectionReplaced(MatrixError):
    """Another request of the device uses the connection, or it has opened too many others."""

    errcode, status = f"{STREAM_ERRORS}M_REPLACED", 409


class ResponseSource(Protocol):
    """The part of `SlidingSync` that is used here."""

    @property
    def is_stopping(self) -> bool: ...

    async def next_response(
        self, caller: Requester, request: SlidingSyncRequest, max_wait: float
    ) -> SlidingSyncResponse | None: ...


class SlidingSubscription:
    """The responses of one connection, from that to `request` on."""

    def __init__(
        self,
        source: ResponseSource,
        caller: Requester,
        request: SlidingSyncRequest,
        sink: UpdateSink,
        ended: Callable[["SlidingSubscription"], object],
    ) -> None:
        self._source = source
        self._caller = caller
        self._request = request._replace(timeout=int(WAIT_SECONDS * 1000))
        self._sink = sink
        self._ended = ended
        self._after: SlidingSyncRequest | None = None  # the next one, once this is acknowledged
        self._running: Deferred[None] | None = None
        self._is_stopped = False

    @property
    def conn_id(self) -> str:
        """The name of the connection."""
        return self._request.conn_id

    async def first(self) -> SlidingSyncResponse:
        """The first response, at once. Raises as `SlidingSync.sync` does."""
        try:
            response = await self._source.next_response(self._caller, self._request, 0)
            if response is None or self._is_stopped:
                raise ConnectionReplaced("Another request uses this connection")
        except BaseException:
            self._end()
            raise
        self._after = _following(self._request, response)
        return response

    def acknowledge(self, pos: str) -> None:
        """The client has the response with this `pos`. Raises `UnknownPos` if that is another."""
        after = self._after
        if after is None or after.pos != pos:
            raise UnknownPos("This is not the `pos` of the newest response of the connection")
        self._request, self._after = after, None
        self._running = Deferred.fromCoroutine(self._send_next())
        self._running.addErrback(self._failed)

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True
        if self._running is not None:
            self._running.cancel()

    async def _send_next(self) -> None:
        response: SlidingSyncResponse | None = None
        while response is None or response.pos == self._request.pos:
            if self._source.is_stopping:
                return  # its socket is about to be closed
            response = await self._source.next_response(self._caller, self._request, WAIT_SECONDS)
            if response is None:
                raise ConnectionReplaced("Another request uses this connection")
        if not self._is_stopped:
            self._after = _following(self._request, response)
            self._sink.send_update(self._frame(response.encode(Form.ACCEPTED)))

    def _frame(self, members: bytes) -> bytes:
        return b'{"conn_id":%s,%s' % (_encode(self.conn_id), members[1:])

    def _failed(self, failure: Failure) -> None:
        if self._is_stopped and failure.check(CancelledError, MatrixError):
            return
        self._end()
        error = failure.value
        if isinstance(error, MatrixError) and not isinstance(error, Unavailable):
            self._sink.send_update(self._frame(_encode({"error": error.body()})))
        else:
            self._sink.update_failed(failure)

    def _end(self) -> None:
        self._is_stopped = True
        self._ended(self)


class SlidingSubscriptions:
    """The subscriptions of one client, by `conn_id`."""

    def __init__(self, sink: UpdateSink) -> None:
        self._sink = sink
        self._subscriptions: dict[str, SlidingSubscription] = {}

    def begin(
        self, source: ResponseSource, caller: Requester, request: SlidingSyncRequest
    ) -> SlidingSubscription:
        """A new subscription, in place of one of the same name. Raises `UserLimitExceeded`."""
        self.end(request.conn_id)
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise UserLimitExceeded(f"A socket has at most {MAX_SUBSCRIPTIONS} subscriptions")
        begun = SlidingSubscription(source, caller, request, self._sink, self._forget)
        self._subscriptions[request.conn_id] = begun
        return begun

    def acknowledge(self, conn_id: str, pos: str) -> None:
        """The client has a response. Raises `UnknownPos`."""
        subscription = self._subscriptions.get(conn_id)
        if subscription is None:
            raise UnknownPos("There is no subscription to this connection")
        subscription.acknowledge(pos)

    def end(self, conn_id: str) -> None:
        """End the subscription to a connection, if there is one."""
        subscription = self._subscriptions.pop(conn_id, None)
        if subscription is not None:
            subscription.stop()

    def stop(self) -> None:
        """End all subscriptions."""
        for conn_id in list(self._subscriptions):
            self.end(conn_id)

    def _forget(self, subscription: SlidingSubscription) -> None:
        if self._subscriptions.get(subscription.conn_id) is subscription:
            del self._subscriptions[subscription.conn_id]


def _following(request: SlidingSyncRequest, response: SlidingSyncResponse) -> SlidingSyncRequest:
    """The request of a client that has a response."""
    body, next_batch = request.body, response.extensions.to_device_next
    messages = body.extensions.to_device
    if messages is not None and next_batch is not None and next_batch != messages.since:
        extensions = replace(body.extensions, to_device=replace(messages, since=next_batch))
        body = replace(body, extensions=extensions)
    return request._replace(body=body, pos=response.pos)
