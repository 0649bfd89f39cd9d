"""Push gateways: the servers that pass notifications on to phones.

Any user can name any server as their gateway. So each gets a share of the requests only, and
servers that have not accepted a notification lately are sent a few at a time.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from homeserver.concurrency.fair_slots import FairSlots
from homeserver.concurrency.lru_cache import LruCache
from homeserver.outbound.http_client import OutboundError
from homeserver.outbound.json_posts import JsonPosts

MAX_REQUESTS = 400  # at the same time
MAX_OF_GATEWAY = 100  # of them, those to one gateway
MAX_UNPROVEN = 60  # to gateways that have not accepted the last notification
MAX_OF_UNPROVEN = 10
MAX_PROVEN = 10_000  # gateways that are remembered
MAX_WAITING = 10_000_000  # pushers, which have one request each: their number is bounded
TIMEOUT_SECONDS = 20.0
MAX_BODY = 65_536  # bytes of a response


class PushFailed(Exception):
    """The gateway did not accept a notification; `status` is that of its response, if any."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class GatewayResponse(msgspec.Struct):
    """What a gateway accepts a notification with."""

    rejected: list[str] = []


class Gateways:
    """Sends notifications to gateways.

    `on_reachable(name)` is called when a gateway has accepted a notification.
    """

    def __init__(self, posts: JsonPosts, on_reachable: Callable[[str], None]) -> None:
        self._posts = posts
        self._on_reachable = on_reachable
        self._proven: LruCache[str, bool] = LruCache("push_gateways", MAX_PROVEN)
        self._slots = _slots(MAX_REQUESTS, MAX_OF_GATEWAY)
        self._unproven_slots = _slots(MAX_UNPROVEN, MAX_OF_UNPROVEN)
        self._decode = msgspec.json.Decoder(GatewayResponse).decode
        self.accepted = 0
        self.failed = 0

    def slot(self, gateway: str) -> AbstractAsyncContextManager[None]:
        """A context that holds one of the slots for requests to a gateway."""
        slots = self._slots if self._proven.peek(gateway) else self._unproven_slots
        return slots.slot(gateway)

    async def notify(self, gateway: str, url: str, body: bytes) -> list[str]:
        """Send a notification; the pushkeys that the gateway rejects. Raises `PushFailed`."""
        try:
            response = await self._posts.post(url, body, max_body=MAX_BODY, timeout=TIMEOUT_SECONDS)
        except OutboundError as error:
            self.failed += 1
            # It may take long to fail again, so from now on it gets few of the slots.
            self._proven.pop(gateway)
            raise PushFailed(str(error)) from error
        if not 200 <= response.status < 300:
            self.failed += 1
            raise PushFailed(f"the status is {response.status}", response.status)
        try:
            rejected = self._decode(response.body).rejected
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.failed += 1
            raise PushFailed(f"the response is not valid: {error}", response.status) from error
        self.accepted += 1
        self._proven.put(gateway, True)
        self._on_reachable(gateway)
        return rejected


def _slots(size: int, share: int) -> FairSlots:
    return FairSlots(size, share=share, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING)
