"""Delayed events over the API: as proposed now, and as clients were deployed with them.

Under the unstable path a scheduled event can be sent, cancelled and restarted without an access
token: there the delay id, which cannot be guessed, is the proof. Clients give it to the server of a
call, which sends their leaving for them. As clients expect it there, an event that is finalised is
not found.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.sticky_parameter import stickiness_in
from homeserver.client_api.rooms.timestamp_massaging import with_timestamp
from homeserver.protocol.errors import NotFound
from homeserver.protocol.proposals.unstable_names import DELAYED_EVENTS_PATH
from homeserver.rooms.sending.delayed_events import (
    Action,
    AlreadyFinalised,
    DelayedEvents,
    DelayRequest,
)
from homeserver.storage.accounts.delayed_events import DelayedEvent
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

ROOMS = "/_matrix/client/v3/rooms"
MANAGE = "/_matrix/client/v1/delayed_events"
UNSTABLE_ROOMS = f"{DELAYED_EVENTS_PATH}/rooms"
UNSTABLE_MANAGE = f"{DELAYED_EVENTS_PATH}/delayed_events"


class Schedule(msgspec.Struct):
    """The event, and its delay; a state event has a state key."""

    delay_ms: int
    content: dict[str, Any]
    state_key: str | None = None


class UpdateAction(msgspec.Struct):
    """The action, in the form of the first clients."""

    action: Literal["send", "cancel", "restart"]


class ListQuery(msgspec.Struct):
    """The wanted part of the list, in the form of deployed clients."""

    status: Literal["scheduled", "finalised"] | None = None


class DelayedEventsApi:
    def __init__(self, delayed: DelayedEvents) -> None:
        self._delayed = delayed

    def routes(self) -> list[Route]:
        guest = Auth.GUEST
        schedule = "{room_id}/delayed_event/{event_type}/{txn_id}"
        return [
            *(
                Route("PUT", f"{rooms}/{schedule}", self.schedule, guest, limit="message")
                for rooms in (ROOMS, UNSTABLE_ROOMS)
            ),
            Route("GET", MANAGE, self.list_scheduled, guest, limit="lookup"),
            Route("GET", UNSTABLE_MANAGE, self.list_all, guest, limit="lookup"),
            *(
                self._manage("GET", f"{path}/{{delay_id}}", self.look_up, guest, "lookup")
                for path in (MANAGE, UNSTABLE_MANAGE)
            ),
            self._manage("POST", f"{MANAGE}/{{delay_id}}/send", self.send, guest),
            self._manage("POST", f"{MANAGE}/{{delay_id}}/cancel", self.cancel, guest),
            self._manage("POST", f"{MANAGE}/{{delay_id}}/restart", self.restart, guest),
            self._manage("POST", f"{UNSTABLE_MANAGE}/{{delay_id}}", self.update, guest),
            *(
                self._manage(
                    "POST", f"{UNSTABLE_MANAGE}/{{delay_id}}/{action}", handler, Auth.OPTIONAL
                )
                for action, handler in (
                    ("send", self.send_unstable),
                    ("cancel", self.cancel_unstable),
                    ("restart", self.restart_unstable),
                )
            ),
        ]

    def _manage(
        self,
        method: str,
        path: str,
        handler: Callable[..., Any],
        auth: Auth,
        limit: str = "ephemeral",
    ) -> Route:
        return Route(method, path, handler, auth, limit=limit, hides_path=True)

    async def schedule(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        txn_id: str,
        body: Schedule,
        request: Request,
    ) -> dict[str, str]:
        """Schedule an event."""
        delay_request = DelayRequest(
            room_id=room_id,
            type=event_type,
            state_key=body.state_key,
            content=body.content,
            delay_ms=body.delay_ms,
            path=f"rooms/{room_id}/delayed_event/{event_type}",
            txn_id=txn_id,
            sticky=stickiness_in(request),
        )
        caller = with_timestamp(caller, request)
        return {"delay_id": await self._delayed.schedule(caller, delay_request)}

    async def send(self, caller: Requester, delay_id: str) -> None:
        """Send a scheduled event of the caller now."""
        await self._delayed.act(delay_id, Action.SEND, caller.user_id)

    async def cancel(self, caller: Requester, delay_id: str) -> None:
        """Cancel a scheduled event of the caller."""
        await self._delayed.act(delay_id, Action.CANCEL, caller.user_id)

    async def restart(self, caller: Requester, delay_id: str) -> None:
        """Let the delay of a scheduled event of the caller begin again."""
        await self._delayed.act(delay_id, Action.RESTART, caller.user_id)

    async def send_unstable(self, delay_id: str) -> None:
        """Send a scheduled event whose id the client knows."""
        await self._act(delay_id, Action.SEND)

    async def cancel_unstable(self, delay_id: str) -> None:
        """Cancel a scheduled event whose id the client knows."""
        await self._act(delay_id, Action.CANCEL)

    async def restart_unstable(self, delay_id: str) -> None:
        """Let the delay of a scheduled event begin again whose id the client knows."""
        await self._act(delay_id, Action.RESTART)

    async def update(self, caller: Requester, delay_id: str, body: UpdateAction) -> None:
        """Do one of the actions to a scheduled event of the caller."""
        await self._act(delay_id, Action(body.action), caller.user_id)

    async def look_up(self, caller: Requester, delay_id: str) -> dict[str, Any]:
        """A delayed event of the caller."""
        return _described(await self._delayed.get(caller, delay_id))

    async def list_scheduled(self, caller: Requester) -> dict[str, Any]:
        """The scheduled events of the caller."""
        scheduled = await self._delayed.scheduled(caller)
        return {"delayed_events": [_described(each) for each in scheduled]}

    async def list_all(self, caller: Requester, query: ListQuery) -> dict[str, Any]:
        """The scheduled events of the caller, in both forms, and the last finalised ones."""
        response: dict[str, Any] = {}
        if query.status != "finalised":
            scheduled = await self._delayed.scheduled(caller)
            response["delayed_events"] = [_described(each) for each in scheduled]
            response["scheduled"] = [_described_as_deployed(each) for each in scheduled]
        if query.status != "scheduled":
            finalised = await self._delayed.finalised(caller)
            response["finalised"] = [_outcome_as_deployed(each) for each in finalised]
        return response

    async def _act(self, delay_id: str, action: Action, owner: str | None = None) -> None:
        try:
            await self._delayed.act(delay_id, action, owner)
        except AlreadyFinalised as error:
            raise NotFound(str(error)) from error


def _event_of(delayed: DelayedEvent) -> dict[str, Any]:
    event: dict[str, Any] = {
        "delay_id": delayed.delay_id,
        "room_id": delayed.room_id,
        "type": delayed.type,
        "content": msgspec.Raw(delayed.content),
    }
    if delayed.state_key is not None:
        event["state_key"] = delayed.state_key
    return event


def _described(delayed: DelayedEvent) -> dict[str, Any]:
    described = _event_of(delayed)
    described["delay_ms"] = delayed.delay_ms
    described["scheduled_at"] = delayed.scheduled_ms
    if delayed.finalised_ms is not None:
        described["finalised_ts"] = delayed.finalised_ms
    if delayed.event_id is not None:
        described["event_id"] = delayed.event_id
    if delayed.error is not None:
        described["error"] = msgspec.Raw(delayed.error)
    return described


def _described_as_deployed(delayed: DelayedEvent) -> dict[str, Any]:
    described = _event_of(delayed)
    described["delay"] = delayed.delay_ms
    described["running_since"] = delayed.scheduled_ms
    return described


def _outcome_as_deployed(delayed: DelayedEvent) -> dict[str, Any]:
    due_ms = delayed.scheduled_ms + delayed.delay_ms
    outcome: dict[str, Any] = {
        "delayed_event": _described_as_deployed(delayed),
        "outcome": "cancel" if delayed.event_id is None else "send",
        "reason": "action" if (delayed.finalised_ms or 0) < due_ms else "delay",
    }
    if delayed.event_id is not None:
        outcome["event_id"] = delayed.event_id
    if delayed.error is not None:
        outcome |= {"reason": "error", "error": msgspec.Raw(delayed.error)}
    return outcome
