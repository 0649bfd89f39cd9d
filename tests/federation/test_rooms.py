"""Rooms that two servers share: joined, talked in, moderated and left from either side.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

import pytest

from tests.support.sites import Scene
from tests.support.watching import refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(200)]


async def test_users_of_two_servers_talk_in_a_room(scene: Scene) -> None:
    """What the one says the other hears."""
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(invite=[bob])
    await bob.becomes(room, "invite")
    await bob.join(room)
    await alice.sees_member(room, bob, "join")
    await bob.hears(room, await alice.say(room, "hello"))
    await alice.hears(room, await bob.say(room, "hello yourself"))
