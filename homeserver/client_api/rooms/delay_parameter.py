"""The delay that deployed clients of calls send in the query of a request that sends an event.

Without attention to it, the event with which a client leaves a call would be sent at once.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import InvalidParam, MatrixError
from homeserver.protocol.proposals.unstable_names import UNSTABLE_DELAY, UNSTABLE_PARENT_DELAY
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.rooms.sending.delayed_events import DelayedEvents, DelayRequest, DelayTooLong
from homeserver.web.request import Request

MAX_DIGITS = 16
MARK = b"msc4140"


class DeployedDelayTooLong(MatrixError):
    """`DelayTooLong` as deployed clients look for it, which then use the longest delay."""

    errcode, status = "M_UNKNOWN", 400


def has_delay(request: Request) -> bool:
    """Whether a request may have a delay; it costs next to nothing, as all messages ask."""
    return MARK in request.query


async def schedule_instead(
    delayed: DelayedEvents,
    caller: Requester,
    request: Request,
    *,
    room_id: str,
    event_type: str,
    content: dict[str, Any],
    state_key: str | None = None,
    txn_id: str | None = None,
    sticky: Stickiness | None = None,
) -> dict[str, str]:
    """Schedule the event that a request with a delay would send. Raises `InvalidParam`."""
    try:
        delay_id = await delayed.schedule(
            caller,
            DelayRequest(
                room_id=room_id,
                type=event_type,
                state_key=state_key,
                content=content,
                delay_ms=_delay_in(request),
                path=f"rooms/{room_id}/send/{event_type}/delayed",
                txn_id=txn_id,
                sticky=sticky,
            ),
        )
    except DelayTooLong as error:
        raise DeployedDelayTooLong(str(error), **error.extra) from error
    return {"delay_id": delay_id}


def _delay_in(request: Request) -> int:
    if UNSTABLE_PARENT_DELAY in request.parameters:
        raise InvalidParam("Events are not sent after other delayed events")
    values = request.parameters.get(UNSTABLE_DELAY, [])
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise InvalidParam(f"{UNSTABLE_DELAY} is a number of milliseconds")
    return int(text)
