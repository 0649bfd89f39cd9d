"""Simplified sliding sync, in the accepted form and in the one that deployed clients speak.

Spec: MSC4186
"""

from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.lru_cache import LruCache
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.protocol.proposals.unstable_names import SLIDING_SYNC
from homeserver.protocol.sliding_sync.accepted_form import AcceptedBody
from homeserver.protocol.sliding_sync.deployed_form import DeployedBody
from homeserver.protocol.sliding_sync.request import (
    RequestBody,
    SlidingSyncRequest,
    check_name,
    check_presence,
)
from homeserver.protocol.sliding_sync.response import Form
from homeserver.sync.sliding.sliding_sync import SlidingSync
from homeserver.web.bodies import check_no_nul, contains_nul, decode_body
from homeserver.web.routes import Auth, Route

PATH = "/_matrix/client/v4/sync"
MAX_BODY = 262_144  # bytes; a connection keeps what its requests ask for
MAX_BODIES_BYTES = 16 << 20  # of decoded requests, roughly
MAX_REQUESTS_BYTES = 4 << 20  # of requests whose decoded form is known
NOTHING = msgspec.Raw(b"null")


class SlidingSyncQuery(msgspec.Struct):
    """The parameters of the deployed form."""

    pos: str | None = None
    timeout: int = 0  # ms
    set_presence: str | None = None


class RequestParts(msgspec.Struct):
    """A body of either form, of which only the parts are decoded that differ each time."""

    conn_id: str | None = None
    lists: msgspec.Raw = NOTHING
    room_subscriptions: msgspec.Raw = NOTHING
    extensions: msgspec.Raw = NOTHING


class AcceptedParts(RequestParts):
    """The parts of the accepted form that are parameters in the other one."""

    pos: str | None = None
    timeout: int = 0  # ms
    set_presence: str | None = None


class RequestBodies:
    """Decodes what requests of one form ask for.

    Clients ask for the same in each request, and all clients of one kind for much the same: what is
    decoded is kept, and is then the same object.
    """

    def __init__(
        self,
        body: type[DeployedBody] | type[AcceptedBody],
        cache: LruCache[bytes, RequestBody],
    ) -> None:
        self._decoder = msgspec.json.Decoder(body)
        self._bodies = cache

    def decode(self, parts: RequestParts) -> RequestBody:
        """What a request asks for. Raises `BadJson` or `InvalidParam`."""
        joined = b'{"lists":%s,"room_subscriptions":%s,"extensions":%s}' % (
            bytes(parts.lists),
            bytes(parts.room_subscriptions),
            bytes(parts.extensions),
        )
        body = self._bodies.get(joined)
        if body is None:
            decoded = decode_body(self._decoder, joined)
            if contains_nul(joined):
                check_no_nul(decoded)
            body = self._bodies.put(joined, decoded.value(len(joined)))
        return body


class DeployedRequests:
    """Reads bodies of the deployed form: most clients send the same bytes each time."""

    def __init__(self) -> None:
        cache: LruCache[bytes, RequestBody] = LruCache(
            "deployed_sync_bodies", MAX_BODIES_BYTES, size_of=_size_of
        )
        self._bodies = RequestBodies(DeployedBody, cache)
        self._parts = msgspec.json.Decoder(RequestParts)
        self._known: LruCache[bytes, tuple[RequestBody, str]] = LruCache(
            "deployed_sync_requests", MAX_REQUESTS_BYTES, size_of=lambda encoded, _: len(encoded)
        )

    def read(self, encoded: bytes) -> tuple[RequestBody, str]:
        """What a request asks for, and its `conn_id`. Raises as `RequestBodies.decode` does."""
        known = self._known.get(encoded)
        if known is None:
            parts: RequestParts = decode_body(self._parts, encoded or b"{}")
            if contains_nul(encoded):
                check_no_nul(parts)
            body = self._bodies.decode(parts), check_name(parts.conn_id or "")
            known = self._known.put(encoded, body)
        return known


class SlidingSyncApi:
    """`POST …/sync`; `max_wait` bounds the time that a request is held, in seconds."""

    def __init__(
        self, sliding_sync: SlidingSync, presence: PresenceTracker, max_wait: float
    ) -> None:
        self._sliding_sync = sliding_sync
        self._presence = presence
        self._max_wait = max_wait
        self._accepted = RequestBodies(
            AcceptedBody, LruCache("sliding_sync_bodies", MAX_BODIES_BYTES, size_of=_size_of)
        )
        self._deployed = DeployedRequests()

    def routes(self) -> list[Route]:
        deployed = f"/_matrix/client/unstable/{SLIDING_SYNC}/sync"
        return [
            _route(PATH, self.sliding_sync),
            _route(deployed, self.deployed_sliding_sync, varies="pos"),
        ]

    # Plain functions, of which no frame holds the body of a request while it waits.

    def sliding_sync(
        self, caller: Requester, body: AcceptedParts
    ) -> Coroutine[Any, Any, msgspec.Raw]:
        """What is new for a connection, as soon as there is anything."""
        request = self.accepted_request(body)
        return self._sync(caller, request, body.set_presence, Form.ACCEPTED)

    def accepted_request(self, body: AcceptedParts) -> SlidingSyncRequest:
        """The request that a body of the accepted form is."""
        wanted, conn_id = self._accepted.decode(body), check_name(body.conn_id or "")
        return SlidingSyncRequest(wanted, conn_id, body.pos or None, body.timeout)

    def deployed_sliding_sync(
        self, caller: Requester, query: SlidingSyncQuery, body: bytes
    ) -> Coroutine[Any, Any, msgspec.Raw]:
        """The same in the form of deployed clients."""
        wanted, conn_id = self._deployed.read(body)
        request = SlidingSyncRequest(wanted, conn_id, query.pos or None, query.timeout)
        return self._sync(caller, request, query.set_presence, Form.DEPLOYED)

    async def _sync(
        self, caller: Requester, request: SlidingSyncRequest, set_presence: str | None, form: Form
    ) -> msgspec.Raw:
        presence = check_presence(set_presence)
        device = (caller.user_id, caller.device_id, cast("State | None", presence))
        await self._presence.sync_began(*device)
        try:
            response = await self._sliding_sync.sync(caller, request, self._max_wait)
        finally:
            self._presence.sync_ended(*device)
        return msgspec.Raw(response.encode(form))


def _size_of(encoded: bytes, _: RequestBody) -> int:
    """The bytes of a decoded body, roughly."""
    return 8 * len(encoded)


def _route(path: str, handler: Callable[..., Any], varies: str | None = None) -> Route:
    return Route(
        "POST", path, handler, Auth.GUEST, max_body=MAX_BODY, cancellable=True, varies=varies
    )
