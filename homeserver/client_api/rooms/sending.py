"""Sending messages and redactions over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.delay_parameter import has_delay, schedule_instead
from homeserver.client_api.rooms.sticky_parameter import stickiness_in
from homeserver.client_api.rooms.timestamp_massaging import with_timestamp
from homeserver.protocol.proposals.unstable_names import WITH_RELATIONS
from homeserver.rooms.sending.delayed_events import DelayedEvents
from homeserver.rooms.sending.related_redactions import (
    RelatedRedactions,
    check_relation_types,
)
from homeserver.rooms.sending.sending import Sending
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

ROOM = "/_matrix/client/v3/rooms/{room_id}"


class Redaction(msgspec.Struct):
    """The reason for a redaction, and the relation types of children to redact as well."""

    reason: str | None = None
    with_rel_types: list[str] | None = None
    unstable_rel_types: list[str] | None = msgspec.field(default=None, name=WITH_RELATIONS)


class SendingApi:
    def __init__(
        self, sending: Sending, related: RelatedRedactions, delayed: DelayedEvents
    ) -> None:
        self._delayed = delayed
        self._sending = sending
        self._related = related

    def routes(self) -> list[Route]:
        send, send_once = f"{ROOM}/send/{{event_type}}", f"{ROOM}/send/{{event_type}}/{{txn_id}}"
        redact = f"{ROOM}/redact/{{event_id}}"
        redact_once = f"{redact}/{{txn_id}}"
        return [
            Route("PUT", send_once, self.send_message, Auth.GUEST, limit="message"),
            Route("PUT", redact_once, self.redact_event, limit="message"),
            # No longer specified, but scripts send without transaction ids.
            Route("POST", send, self.send_message, Auth.GUEST, limit="message"),
            Route("POST", redact, self.redact_event, limit="message"),
        ]

    async def send_message(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        body: dict[str, Any],
        request: Request,
        txn_id: str | None = None,
    ) -> dict[str, str]:
        """Send a message event, or schedule it."""
        caller, sticky = with_timestamp(caller, request), stickiness_in(request)
        if has_delay(request):
            return await schedule_instead(
                self._delayed,
                caller,
                request,
                room_id=room_id,
                event_type=event_type,
                content=body,
                txn_id=txn_id,
                sticky=sticky,
            )
        event_id = await self._sending.send_message(
            caller, room_id, event_type, body, txn_id, sticky
        )
        return {"event_id": event_id}

    async def redact_event(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        body: Redaction,
        txn_id: str | None = None,
    ) -> dict[str, str]:
        """Redact an event, and with it those that relate to it, if the client wishes."""
        content = {} if body.reason is None else {"reason": body.reason}
        rel_types = body.with_rel_types or body.unstable_rel_types or ()
        check_relation_types(rel_types)
        redaction_id = await self._sending.redact(caller, room_id, event_id, content, txn_id)
        if rel_types:
            await self._related.redact(caller, room_id, event_id, content, rel_types)
        return {"event_id": redaction_id}
