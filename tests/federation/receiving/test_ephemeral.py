"""EDUs between servers: typing, receipts, presence.

Spec: https://spec.matrix.org/v1.19/server-server-api/#edus
"""

import pytest

from tests.federation.shared_rooms import shared_room
from tests.support.sites import Scene

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


async def test_typing_is_seen_on_the_other_server(scene: Scene) -> None:
    """A user sees that a user of the other server types, and has stopped."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    for typist, reader in ((alice, bob), (bob, alice)):
        await typist.type(room)
        await reader.sees_typing(room, typist)
        await typist.type(room, False)
        await reader.sees_typing(room)


async def test_receipts_are_seen_on_the_other_server(scene: Scene) -> None:
    """A user sees how far a user of the other server has read."""
    alice, bob = await scene.alice_and_bob()
    room = await shared_room(alice, bob)

    for writer, reader in ((alice, bob), (bob, alice)):
        said = await writer.say(room, "read this")
        await reader.hears(room, said)
        await reader.read(room, said)
        await writer.sees_receipt(room, said, reader)


async def test_presence_is_seen_by_users_who_share_a_room(scene: Scene) -> None:
    """A user sees the presence of users of any server."""
    alice, bob = await scene.alice_and_bob()
    await shared_room(alice, bob)

    for shown, watching in ((alice, bob), (bob, alice)):
        await shown.set_presence("online", status_msg="gardening")
        await watching.sees_presence(shown, presence="online", status_msg="gardening")
