"""Previews of events, for requests that must be sent before the event itself.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Sequence

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateKey
from homeserver.rooms.room.extremities import MAX_EXTREMITIES, by_depth
from homeserver.rooms.room.writer import RoomWriter


async def build_preview(
    writer: RoomWriter, draft: EventDraft, signers: Collection[str] = ()
) -> Event:
    """The event that a draft would become now. As `RoomWriter.preview`, but loads what is missing.

    If the room has more branches than one event joins, it follows some of them.
    """
    while True:
        try:
            follows = (
                await _branches_to_follow(writer, draft) if writer.extremities.is_wide else None
            )
            return writer.preview(draft, signers, follows)
        except NotInMemory as missing:
            await missing.load()


async def _branches_to_follow(writer: RoomWriter, draft: EventDraft) -> Sequence[StoredEvent]:
    """Branches that together have the event's auth events, and the deepest of the others.

    Other servers check the event by the states after the events that it follows, and nothing else.
    """
    storage, extremities, version = writer.storage, writer.extremities, writer.room.version
    keys: list[StateKey] = auth_types_for(
        version, draft.type, draft.sender, draft.state_key, draft.content
    )
    lacking = await storage.nids_at(extremities.root, keys)
    ordered = by_depth(extremities.events)
    chosen: dict[StoredEvent, None] = {}
    for stored in ordered:
        if not lacking:
            break
        found = await storage.nids_at(stored.state_after, lacking)
        fitting = [key for key, number in found.items() if lacking[key] == number]
        if fitting:
            chosen[stored] = None
            lacking = {key: number for key, number in lacking.items() if key not in fitting}
    return [*dict.fromkeys([*chosen, *ordered])][:MAX_EXTREMITIES]
