"""Trying out what an event would be, where its room has to be asked for something first."""

from homeserver.protocol.events import Event
from homeserver.rooms.drafts import Draft
from homeserver.rooms.states import MissingNodes
from homeserver.rooms.stores import NotAtHand
from homeserver.rooms.writer import RoomWriter


async def rehearsed(writer: RoomWriter, draft: Draft) -> Event:
    """The event that a draft would become now. Raises what `RoomWriter.rehearse` raises."""
    while True:
        try:
            return writer.rehearse(draft)
        except (NotAtHand, MissingNodes) as missing:
            await writer.fetch(missing)
