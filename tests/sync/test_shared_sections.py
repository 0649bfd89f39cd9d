"""What many devices are told alike is encoded once for all of them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from homeserver.sync.sync_request import STATE_AFTER, UNSTABLE_STATE_AFTER
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import World


class SharedSectionTests(DatabaseTestCase):
    async def test_readers_of_a_kind_get_the_same_bytes(self) -> None:
        """Whether they want the state at the start or at the end, and by whatever name."""
        world = await World.start(self.db)
        alice = await world.user("alice")
        others = [await world.user(f"user{number}") for number in range(3)]
        room_id = await world.create_room(alice)
        for other in others:
            await world.rooms.memberships.join(other, room_id)
        since = int((await world.update(alice))["next_batch"][1:])
        await world.say(alice, room_id, "hello")
        await world.rooms.sending.set_state(alice, room_id, "m.room.name", "", {"name": "Tea"})

        answers = []
        for state_after in (None, STATE_AFTER, UNSTABLE_STATE_AFTER):
            for other in others:
                reader = await world.engine.reader(other, state_after=state_after)
                answers.append((await world.engine.update(reader, since)).encode())

        assert len({id(answer) for answer in answers}) == 3
        assert [UNSTABLE_STATE_AFTER.encode() in answer for answer in answers[::3]] == [
            False,
            False,
            True,
        ]
        assert b'"state_after":{"events":[{' in answers[3]
        assert b"state_after" not in answers[0]
