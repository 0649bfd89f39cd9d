"""Simplified sliding sync, in the accepted form and in the one that deployed clients speak.

Spec: MSC4186
"""

from typing import cast

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.protocol.sliding_sync.accepted_form import AcceptedBody
from homeserver.protocol.sliding_sync.deployed_form import DeployedBody
from homeserver.protocol.sliding_sync.request import SlidingSyncRequest, check_presence
from homeserver.protocol.sliding_sync.response import Form
from homeserver.sync.sliding.sliding_sync import SlidingSync
from homeserver.web.routes import Auth, Route

FEATURE = "org.matrix.simplified_msc3575"


class SlidingSyncQuery(msgspec.Struct):
    """The parameters of the deployed form."""

    pos: str | None = None
    timeout: int = 0  # ms
    set_presence: str | None = None


class SlidingSyncApi:
    """`POST …/sync`; `max_wait` bounds the time that a request is held, in seconds."""

    def __init__(
        self, sliding_sync: SlidingSync, presence: PresenceTracker, max_wait: float
    ) -> None:
        self._sliding_sync = sliding_sync
        self._presence = presence
        self._max_wait = max_wait

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/_matrix/client/v4/sync",
                self.sliding_sync,
                Auth.GUEST,
                cancellable=True,
            ),
            Route(
                "POST",
                f"/_matrix/client/unstable/{FEATURE}/sync",
                self.deployed_sliding_sync,
                Auth.GUEST,
                cancellable=True,
            ),
        ]

    async def sliding_sync(self, caller: Requester, body: AcceptedBody) -> msgspec.Raw:
        """What is new for a connection, as soon as there is anything."""
        presence = check_presence(body.set_presence)
        return await self._sync(caller, body.request(), presence, Form.ACCEPTED)

    async def deployed_sliding_sync(
        self, caller: Requester, query: SlidingSyncQuery, body: DeployedBody
    ) -> msgspec.Raw:
        """The same in the form of deployed clients."""
        presence = check_presence(query.set_presence)
        request = body.request(caller.user_id, query.pos, query.timeout)
        return await self._sync(caller, request, presence, Form.DEPLOYED)

    async def _sync(
        self, caller: Requester, request: SlidingSyncRequest, presence: str | None, form: Form
    ) -> msgspec.Raw:
        device = (caller.user_id, caller.device_id, cast("State | None", presence))
        await self._presence.sync_began(*device)
        try:
            response = await self._sliding_sync.sync(caller, request, self._max_wait)
        finally:
            self._presence.sync_ended(*device)
        return msgspec.Raw(response.encode(form))
