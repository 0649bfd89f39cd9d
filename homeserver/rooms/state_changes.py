"""State changes that the server makes by itself, each decided by the state that it changes.

When a profile changes, when an account ends, or when a room takes no guests any more, the server
sends member events for its users, while those users, and others, go on acting. So the decision is
made in the same turn of the reactor as the write: whoever left a moment ago is not brought back
by an event that was meant for a member.
"""

from collections.abc import Callable

from homeserver.rooms.drafts import Draft
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.states import MissingNodes
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.writer import NotAtHand, RoomWriter

Decide = Callable[[RoomWriter], Draft | None]


async def change_state(rooms: Rooms, room_id: str, decide: Decide) -> StoredEvent | None:
    """Send the state event that `decide` makes of the room as it is, or nothing if it gives `None`.

    `decide` may not wait, and may be asked again. What it reads of the writer may raise
    `NotAtHand`. Raises what `RoomWriter.send` raises.
    """
    async with rooms.writing(room_id) as writer:
        while True:
            draft = None
            try:
                draft = decide(writer)
                if draft is None:
                    return None
                (stored,), done = writer.append([draft])
                break
            except NotAtHand as missing:
                await rooms.stores.events.load(writer.room.version, missing.events)
                await rooms.stores.names.nids(missing.names)
            except MissingNodes:
                await _load_nodes(rooms, writer, draft)
        await done
        return stored


async def _load_nodes(rooms: Rooms, writer: RoomWriter, draft: Draft | None) -> None:
    assert draft is not None
    assert draft.state_key is not None
    numbers = await rooms.stores.names.nids([draft.type, draft.state_key])
    await rooms.stores.states.get(writer.head.root, numbers[draft.type], numbers[draft.state_key])
