"""Room sections that are equal for many devices are encoded once for all of them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from homeserver.protocol.proposals.unstable_names import UNSTABLE_STATE_AFTER
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.sync.sync_request import STATE_AFTER
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer


class SharedSectionTests(DatabaseTestCase):
    async def test_equal_requests_get_the_same_bytes(self) -> None:
        """They do for state at the start or at the end of a timeline, and under either name."""
        server = await SyncServer.start(self.db)
        alice = await server.user("alice")
        others = [await server.user(f"user{number}") for number in range(3)]
        room_id = await server.create_room(alice)
        for other in others:
            await server.rooms.memberships.join(other, room_id)
        since = parse_sync_token((await server.update(alice))["next_batch"])
        await server.say(alice, room_id, "hello")
        await server.rooms.sending.set_state(alice, room_id, "m.room.name", "", {"name": "Tea"})

        responses = []
        for state_after in (None, STATE_AFTER, UNSTABLE_STATE_AFTER):
            for other in others:
                request = await server.engine.build_request(other, state_after=state_after)
                responses.append((await server.engine.update(request, since)).encode())

        assert len(set(responses)) == 3
        assert [UNSTABLE_STATE_AFTER.encode() in response for response in responses[::3]] == [
            False,
            False,
            True,
        ]
        assert b'"state_after":{"events":[{' in responses[3]
        assert b"state_after" not in responses[0]
