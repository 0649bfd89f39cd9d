"""Drafts: events that users of this server want to send, before the room's writer makes them."""

from dataclasses import dataclass
from typing import Any

from homeserver.rooms.stored_event import StoredEvent


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that somebody on this server wants to send; the writer makes the rest of it."""

    type: str
    sender: str
    content: dict[str, Any]
    state_key: str | None = None
    origin_server_ts: int | None = None  # ms since the epoch; None: now
    redacts: str | None = None  # event id, in room versions that have it outside of `content`
    target: StoredEvent | None = None  # the event of this room that is to be redacted


@dataclass(frozen=True, slots=True)
class Transaction:
    """The request that makes an event: the device, and the transaction id that it chose."""

    user_id: str
    device_id: str
    txn_id: str
