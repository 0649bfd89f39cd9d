"""Sections of `/sync` that are the same for many devices are encoded once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from homeserver.sync.sync_request import STATE_AFTER, UNSTABLE_STATE_AFTER
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer


class SharedSectionTests(DatabaseTestCase):
    async def test_equal_requests_get_the_same_bytes(self) -> None:
        """With the state at the start or at the end, under either name."""
        server = await SyncServer.start(self.db)
        alice = await server.user("alice")
        others = [await server.user(f"user{number}") for number in range(3)]
        room_id = await server.create_room(alice)
        for other in others:
            await server.rooms.memberships.join(other, room_id)
        since = int((await server.update(alice))["next_batch"][1:])
        await server.say(alice, room_id, "hello")
        await server.rooms.sending.set_state(alice, room_id, "m.room.name", "", {"name": "Tea"})

        answers = []
        for state_after in (None, STATE_AFTER, UNSTABLE_STATE_AFTER):
            for other in others:
                reader = await server.engine.reader(other, state_after=state_after)
                answers.append((await server.engine.update(reader, since)).encode())

        assert len({id(answer) for answer in answers}) == 3
        assert [UNSTABLE_STATE_AFTER.encode() in answer for answer in answers[::3]] == [
            False,
            False,
            True,
        ]
        assert b'"state_after":{"events":[{' in answers[3]
        assert b"state_after" not in answers[0]
