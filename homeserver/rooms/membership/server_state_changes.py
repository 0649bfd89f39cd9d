"""State changes that the server makes by itself, each decided by the state that it changes.

When a profile changes, when an account is deactivated, or when a room no longer allows guests, the
server sends member events for its users, while those users, and others, continue to act. So the
decision and the write are made without yielding to the reactor: a user who left a moment ago is not
brought back by an event that was meant for a member.
"""

from collections.abc import Callable

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.draft_senders import DraftSender
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.writer import RoomWriter

Decide = Callable[[RoomWriter], EventDraft | None]


async def change_state(rooms: RoomRegistry, room_id: str, decide: Decide) -> StoredEvent | None:
    """Send the state event that `decide` returns for the room as it is; if `None`, send nothing.

    `decide` may not wait, and may be called again. Reading the writer may raise `NotInMemory`.
    Raises what `RoomWriter.send` raises.
    """
    async with rooms.writing(room_id) as writer:
        while True:
            try:
                draft = decide(writer)
                if draft is None:
                    return None
                if (sender := writer.sender_of(draft)) is not None:
                    stored = await _send_if_wanted(sender, writer, draft, decide)
                    if stored is not None:
                        return stored
                    # The room has no policy server after all, or it has changed meanwhile.
                    draft = decide(writer)
                    if draft is None:
                        return None
                (stored,), done = writer.append([draft])
                break
            except NotInMemory as missing:
                await missing.load()
        await done
        return stored


async def _send_if_wanted(
    sender: DraftSender, writer: RoomWriter, draft: EventDraft, decide: Decide
) -> StoredEvent | None:
    """Send a draft by its sender, unless `decide` returns another one by then."""
    return await sender.send(writer, draft, is_wanted=lambda: decide(writer) == draft)
