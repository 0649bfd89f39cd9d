"""State changes that the server makes by itself, each decided by the state that it changes.

When a profile changes, when an account ends, or when a room takes no guests any more, the server
sends member events for its users, while those users, and others, go on acting. So the decision is
made in the same turn of the reactor as the write: whoever left a moment ago is not brought back
by an event that was meant for a member.
"""

from collections.abc import Callable

from homeserver.rooms.drafts import Draft
from homeserver.rooms.policy import Policy
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.states import MissingNodes
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.stores import NotAtHand
from homeserver.rooms.writer import RoomWriter

Decide = Callable[[RoomWriter], Draft | None]


async def change_state(rooms: Rooms, room_id: str, decide: Decide) -> StoredEvent | None:
    """Send the state event that `decide` makes of the room as it is, or nothing if it gives `None`.

    `decide` may not wait, and may be asked again. What it reads of the writer may raise
    `NotAtHand`. Raises what `RoomWriter.send` raises.
    """
    async with rooms.writing(room_id) as writer:
        while True:
            try:
                draft = decide(writer)
                if draft is None:
                    return None
                if writer.policy is not None and writer.policy.guards(writer, draft):
                    stored = await _send_guarded(writer, writer.policy, draft, decide)
                    if stored is not None:
                        return stored
                    # The room has no policy server after all, or it has changed meanwhile.
                    draft = decide(writer)
                    if draft is None:
                        return None
                (stored,), done = writer.append([draft])
                break
            except (NotAtHand, MissingNodes) as missing:
                await writer.fetch(missing)
        await done
        return stored


async def _send_guarded(
    writer: RoomWriter, policy: Policy, draft: Draft, decide: Decide
) -> StoredEvent | None:
    """Send a draft that the room's policy server is asked about, if it is still wanted then."""
    return await policy.send(writer, draft, is_wanted=lambda: decide(writer) == draft)
