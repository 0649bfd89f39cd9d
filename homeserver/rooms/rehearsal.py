"""Trying out what an event would be, where its room has to be asked for something first."""

from collections.abc import Collection

from homeserver.protocol.events import Event
from homeserver.rooms.drafts import Draft
from homeserver.rooms.states import MissingNodes
from homeserver.rooms.stores import NotAtHand
from homeserver.rooms.writer import RoomWriter


async def rehearsed(writer: RoomWriter, draft: Draft, signers: Collection[str] = ()) -> Event:
    """The event that a draft would become now. As `RoomWriter.rehearse`, but for what it lacks."""
    while True:
        try:
            return writer.rehearse(draft, signers)
        except (NotAtHand, MissingNodes) as missing:
            await writer.fetch(missing)
