"""Subscriptions to threads over the API.

Spec: MSC4306 and MSC4308
"""

from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Unrecognized
from homeserver.protocol.proposals.unstable_names import THREAD_SUBSCRIPTION, THREAD_SUBSCRIPTIONS
from homeserver.push.subscription_json import subscription_changes
from homeserver.push.thread_subscriptions import MAX_PAGE, ThreadSubscriptions
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.streams.tokens import parse_stream_token, stream_token
from homeserver.web.routes import Route


class Subscribe(msgspec.Struct):
    """`automatic` is the id of the event that caused an automatic subscription."""

    automatic: str | None = None


class SubscriptionsQuery(msgspec.Struct):
    """The page of changes, from the latest ones back to a `pos` of sliding sync."""

    direction: Literal["b"] = msgspec.field(name="dir")
    since: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = MAX_PAGE


class ThreadSubscriptionsApi:
    """The endpoints. Unless `is_enabled`, they look as if they did not exist."""

    def __init__(self, subscriptions: ThreadSubscriptions, *, is_enabled: bool) -> None:
        self._given = subscriptions if is_enabled else None

    def routes(self) -> list[Route]:
        one, changes = THREAD_SUBSCRIPTION, THREAD_SUBSCRIPTIONS
        return [
            Route("PUT", one, self.subscribe_to_thread, limit="settings"),
            Route("GET", one, self.get_thread_subscription, limit="lookup"),
            Route("DELETE", one, self.unsubscribe_from_thread, limit="settings"),
            Route("GET", changes, self.get_thread_subscription_changes, limit="lookup"),
        ]

    async def subscribe_to_thread(
        self, caller: Requester, room_id: str, event_id: str, body: Subscribe
    ) -> None:
        """Subscribe to a thread."""
        await self._subscriptions.subscribe(caller.user_id, room_id, event_id, body.automatic)

    async def get_thread_subscription(
        self, caller: Requester, room_id: str, event_id: str
    ) -> dict[str, bool]:
        """Whether a subscription was made automatically."""
        found = await self._subscriptions.get(caller.user_id, room_id, event_id)
        return {"automatic": found.is_automatic}

    async def unsubscribe_from_thread(self, caller: Requester, room_id: str, event_id: str) -> None:
        """End the subscription to a thread."""
        await self._subscriptions.unsubscribe(caller.user_id, room_id, event_id)

    async def get_thread_subscription_changes(
        self, caller: Requester, query: SubscriptionsQuery
    ) -> dict[str, Any]:
        """The changed subscriptions of the caller, the latest first."""
        user_id = caller.user_id
        upto = MAX_POSITION if query.since is None else parse_stream_token(query.since)
        after = 0
        if query.to is not None:
            # A `pos` begins with a token.
            after = parse_sync_token(query.to.partition("-")[0]).of_user(user_id)
        page = await self._subscriptions.changes(user_id, after=after, upto=upto, limit=query.limit)
        response = subscription_changes(page)
        if page.end is not None:
            response["end"] = stream_token(page.end)
        return response

    @property
    def _subscriptions(self) -> ThreadSubscriptions:
        if self._given is None:
            raise Unrecognized("Subscriptions to threads are switched off")
        return self._given
