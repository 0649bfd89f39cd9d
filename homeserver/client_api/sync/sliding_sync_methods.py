"""Sliding sync as a method of the WebSocket: one call for each response, in the accepted form.

A call waits like a request over HTTP, and ends with its socket.

Spec: MSC4186
"""

from twisted.internet.defer import CancelledError, ensureDeferred

from homeserver.client_api.sync.sliding_sync import AcceptedParts, SlidingSyncApi
from homeserver.client_api.sync.stream_methods import Call, Method


class SlidingSyncMethods:
    """The method for sliding sync."""

    def __init__(self, api: SlidingSyncApi) -> None:
        self._api = api

    def methods(self) -> list[Method]:
        return [Method("sliding_sync", AcceptedParts, self.sliding_sync, guests=True)]

    async def sliding_sync(self, call: Call, params: AcceptedParts) -> object:
        """What is new for a connection, as soon as there is anything."""
        running = ensureDeferred(self._api.sliding_sync(call.caller, params))
        stop_watching = call.updates.when_closed(running.cancel)
        try:
            return await running
        except CancelledError:
            return None  # nobody gets the response
        finally:
            stop_watching()
