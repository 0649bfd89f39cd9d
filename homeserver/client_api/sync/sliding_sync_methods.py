"""Sliding sync as a method of the WebSocket, in the accepted form.

A call has one response, for which it waits like a request over HTTP; or, with `subscribe`, it has
the first response at once, and the following ones are frames of their own. Both end with the
socket.

Spec: MSC4186
"""

from collections.abc import Coroutine
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, ensureDeferred

from homeserver.client_api.sync.sliding_sync import AcceptedParts, SlidingSyncApi
from homeserver.client_api.sync.stream_methods import Call, Method
from homeserver.protocol.sliding_sync.response import Form
from homeserver.sync.sliding.sliding_sync import SlidingSync


class CallParts(AcceptedParts):
    """The body of the accepted form, and whether more responses are to follow."""

    subscribe: bool = False


class SlidingSyncMethods:
    """The method for sliding sync."""

    def __init__(self, api: SlidingSyncApi, sliding_sync: SlidingSync) -> None:
        self._api = api
        self._sliding_sync = sliding_sync

    def methods(self) -> list[Method]:
        return [Method("sliding_sync", CallParts, self.sliding_sync, guests=True)]

    async def sliding_sync(self, call: Call, params: CallParts) -> object:
        """What is new for a connection, as soon as there is anything."""
        if params.subscribe:
            return await _until_closed(call, self._subscribe(call, params))
        call.updates.sliding.end(params.conn_id or "")
        return await _until_closed(call, self._api.sliding_sync(call.caller, params))

    async def _subscribe(self, call: Call, params: CallParts) -> msgspec.Raw:
        request = self._api.accepted_request(params)
        subscription = call.updates.sliding.begin(self._sliding_sync, call.caller, request)
        response = await subscription.first()
        return msgspec.Raw(response.encode(Form.ACCEPTED))


async def _until_closed(call: Call, work: Coroutine[Any, Any, msgspec.Raw]) -> object:
    """The result of some work, unless the socket is closed before."""
    running = ensureDeferred(work)
    stop_watching = call.updates.when_closed(running.cancel)
    try:
        return await running
    except CancelledError:
        return None  # nobody gets the response
    finally:
        stop_watching()
