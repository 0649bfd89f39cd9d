"""Importing history over the API, in the form that existing bridges know.

No specification has this: docs/history-import.md describes it.
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import InvalidParam, MissingParam
from homeserver.rooms.events.imported_events import OldMessage
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import ImportRequest
from homeserver.web.routes import Route

PATH = "/_matrix/client/unstable/com.beeper.backfill/rooms/{room_id}/batch_send"
MAX_BODY = 16 * 1024 * 1024  # bytes


class BatchEvent(msgspec.Struct):
    """An old message. `timestamp` is another name of `origin_server_ts`."""

    type: str
    sender: str
    content: dict[str, Any]
    origin_server_ts: int | None = None  # ms since the epoch
    timestamp: int | None = None
    event_id: str | None = None
    room_id: str | None = None
    state_key: str | None = None


class BatchSend(msgspec.Struct):
    """Old messages, oldest first, and where to insert them: see `ImportRequest`."""

    events: list[BatchEvent]
    forward: bool = False
    forward_if_no_messages: bool = False
    send_notification: bool = False
    mark_read_by: str | None = None
    before: str | None = None


class HistoryImportApi:
    def __init__(self, imports: HistoryImport) -> None:
        self._imports = imports

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, self.batch_send, limit="message", max_body=MAX_BODY)]

    async def batch_send(
        self, caller: Requester, room_id: str, body: BatchSend
    ) -> dict[str, list[str]]:
        """Insert old messages into a room."""
        if body.forward and body.before is not None:
            raise InvalidParam("forward and before exclude each other")
        request = ImportRequest(
            [_message(event, room_id) for event in body.events],
            before=body.before,
            forward=body.forward,
            forward_if_empty=body.forward_if_no_messages,
            notify=body.send_notification,
            mark_read_by=body.mark_read_by,
        )
        return {"event_ids": await self._imports.insert(caller, room_id, request)}


def _message(event: BatchEvent, room_id: str) -> OldMessage:
    if event.state_key is not None:
        raise InvalidParam("State is not imported: send it to the room as such")
    if event.room_id not in (None, room_id):
        raise InvalidParam("An event is of another room")
    timestamp = event.timestamp if event.origin_server_ts is None else event.origin_server_ts
    if timestamp is None:
        raise MissingParam("An event has no origin_server_ts")
    return OldMessage(event.type, event.sender, event.content, timestamp, event.event_id)
