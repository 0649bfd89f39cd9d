"""Timestamp massaging: application services choose the `origin_server_ts` of their events.

The query parameter `ts` is that time, in ms since the epoch; that of others is ignored. The place
of the event in the room is the same as without.

Spec: https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
"""

from msgspec.structs import replace

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import InvalidParam
from homeserver.web.request import Request

MAX_TIMESTAMP = 2**53 - 1  # the largest integer of canonical JSON
MAX_DIGITS = 16


def with_timestamp(caller: Requester, request: Request) -> Requester:
    """The caller with the time that their event shall have. Raises `InvalidParam`."""
    if caller.appservice is None:
        return caller
    values = request.parameters.get("ts")
    if not values:
        return caller
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise InvalidParam("ts is a time in milliseconds since the epoch")
    timestamp = int(text)
    if timestamp > MAX_TIMESTAMP:
        raise InvalidParam(f"ts is at most {MAX_TIMESTAMP}")
    return replace(caller, event_ts=timestamp)
