"""Simplified sliding sync, in the accepted form and in the one that deployed clients speak.

Spec: MSC4186
"""

from collections.abc import Callable
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
        self._deployed = RequestBodies(
            DeployedBody, LruCache("deployed_sync_bodies", MAX_BODIES_BYTES, size_of=_size_of)
        )

    def routes(self) -> list[Route]:
        deployed = f"/_matrix/client/unstable/{SLIDING_SYNC}/sync"
        return [
            _route(PATH, self.sliding_sync),
            _route(deployed, self.deployed_sliding_sync),
        ]

    async def sliding_sync(self, caller: Requester, body: AcceptedParts) -> msgspec.Raw:
        """What is new for a connection, as soon as there is anything."""
        query = SlidingSyncQuery(body.pos, body.timeout, body.set_presence)
        return await self._sync(caller, self._accepted, query, body, Form.ACCEPTED)

    async def deployed_sliding_sync(
        self, caller: Requester, query: SlidingSyncQuery, body: RequestParts
    ) -> msgspec.Raw:
        """The same in the form of deployed clients."""
        return await self._sync(caller, self._deployed, query, body, Form.DEPLOYED)

    async def _sync(
        self,
        caller: Requester,
        bodies: RequestBodies,
        query: SlidingSyncQuery,
        parts: RequestParts,
        form: Form,
    ) -> msgspec.Raw:
        presence = check_presence(query.set_presence)
        request = SlidingSyncRequest(
            bodies.decode(parts), check_name(parts.conn_id or ""), query.pos or None, query.timeout
        )
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


def _route(path: str, handler: Callable[..., Any]) -> Route:
    return Route("POST", path, handler, Auth.GUEST, max_body=MAX_BODY, cancellable=True)
