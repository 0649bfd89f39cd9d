"""Syncing by long poll.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.protocol.proposals.unstable_names import (
    UNSTABLE_STATE_AFTER,
    UNSTABLE_USE_STATE_AFTER,
)
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.sync.engine import SyncEngine
from homeserver.sync.sync_request import STATE_AFTER
from homeserver.web.routes import Auth, Route


class StateAfterQuery(msgspec.Struct):
    """The parameter for the state at the end of timelines, under its two names."""

    use_state_after: bool = False
    unstable: bool = msgspec.field(name=UNSTABLE_USE_STATE_AFTER, default=False)

    @property
    def state_after(self) -> str | None:
        """The name of the member for that state; `None` for the state at the start."""
        if self.use_state_after:
            return STATE_AFTER
        return UNSTABLE_STATE_AFTER if self.unstable else None


class SyncQuery(StateAfterQuery):
    """The parameters of `/sync`."""

    since: str | None = None
    filter: str | None = None
    full_state: bool = False
    set_presence: State | None = None
    timeout: int = 0  # ms


class SyncApi:
    """`GET /sync`; `max_wait` bounds the time that a request is held, in seconds."""

    def __init__(self, engine: SyncEngine, presence: PresenceTracker, max_wait: float) -> None:
        self._engine = engine
        self._presence = presence
        self._max_wait = max_wait

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/sync"
        return [Route("GET", path, self.sync, Auth.GUEST, cancellable=True, varies="since")]

    async def sync(self, caller: Requester, query: SyncQuery) -> bytes:
        """The update since a token, as soon as it is not empty."""
        since = None if query.since is None else parse_sync_token(query.since)
        request = await self._engine.build_request(
            caller,
            filter_text=query.filter,
            full_state=query.full_state,
            state_after=query.state_after,
        )
        if since is not None:
            self._engine.received(request, since)
        device = (caller.user_id, caller.device_id, query.set_presence)
        await self._presence.sync_began(*device)
        try:
            if since is None:
                update = await self._engine.update(request, None)
            else:
                timeout = min(max(query.timeout, 0) / 1000, self._max_wait)
                update = await self._engine.wait(request, since, timeout)
        finally:
            self._presence.sync_ended(*device)
        return update.encode()
