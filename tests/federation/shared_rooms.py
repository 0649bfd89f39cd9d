"""Rooms that users of two servers share."""

from tests.support.watcher import Watcher


async def shared_room(alice: Watcher, bob: Watcher, **body: object) -> str:
    """A room of alice's that bob has joined, as both see."""
    room = await alice.create_room(invite=[bob], **body)
    await bob.becomes(room, "invite")
    await bob.join(room)
    # The peer's first sync of a room leaves out users who began to type while it was made.
    await bob.becomes(room, "join")
    await alice.sees_member(room, bob, "join")
    return room


async def exchange_messages(room: str, alice: Watcher, bob: Watcher) -> None:
    """Each receives a message of the other; an unreachable server is tried at the next event."""
    await bob.hears(room, await alice.say(room, "again"))
    await alice.hears(room, await bob.say(room, "again"))


def server_of(watcher: Watcher) -> str:
    """The name of a user's server."""
    return watcher.user_id.partition(":")[2]
