"""Shared requests: one for all devices of a user, where the gateway notifies more than one.

The pushers of a user get an event in the same iteration of the reactor, and each has a queue of its
own. So the first request waits for the next iteration, and those that say the same join it. If it
fails, each pusher tries again by itself.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from collections.abc import Collection

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock
from homeserver.push.pushers.gateways import Gateways
from homeserver.push.pushers.push_notification import PushNotification, request_body
from homeserver.push.pushers.pusher import Pusher

Key = tuple[str, str, bytes]  # the user, the URL of the gateway, and what is said


class _SharedRequest(msgspec.Struct):
    """Devices, and who waits for the pushkeys that the gateway rejects."""

    devices: list[bytes] = msgspec.field(default_factory=list)
    waiting: list[Deferred[Collection[str]]] = msgspec.field(default_factory=list)


class SharedRequests:
    """Sends notifications; `gateways_of_several` are those that notify several devices."""

    def __init__(
        self, gateways: Gateways, gateways_of_several: Collection[str], clock: Clock
    ) -> None:
        self._gateways = gateways
        self._gateways_of_several = frozenset(gateways_of_several)
        self._clock = clock
        self._beginning: dict[Key, _SharedRequest] = {}

    async def notify(self, pusher: Pusher, notification: PushNotification) -> Collection[str]:
        """Send a notification; the pushkeys that the gateway rejects. Raises `PushFailed`."""
        if pusher.gateway not in self._gateways_of_several:
            body = request_body(notification.fields, [notification.device])
            return await self._gateways.notify(pusher.gateway, pusher.url, body)
        key = (pusher.row.user_id, pusher.url, notification.fields)
        request = self._beginning.get(key)
        if request is None:
            request = self._beginning[key] = _SharedRequest()
            self._clock.callLater(0, self._begin, key, pusher.gateway)
        request.devices.append(notification.device)
        response: Deferred[Collection[str]] = Deferred()
        request.waiting.append(response)
        return await response

    def _begin(self, key: Key, gateway: str) -> None:
        request = self._beginning.pop(key)
        _, url, fields = key
        body = request_body(fields, request.devices)
        sent = Deferred.fromCoroutine(self._gateways.notify(gateway, url, body))
        sent.addCallbacks(
            lambda rejected: _answer(request, rejected), lambda failure: _fail(request, failure)
        )


def _answer(request: _SharedRequest, rejected: Collection[str]) -> None:
    for response in request.waiting:
        response.callback(rejected)


def _fail(request: _SharedRequest, failure: Failure) -> None:
    for response in request.waiting:
        response.errback(failure)
