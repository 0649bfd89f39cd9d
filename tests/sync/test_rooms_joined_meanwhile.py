"""Many rooms that a user has joined since the last sync, which are read together."""

from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

ROOMS = 20


class RoomsJoinedMeanwhileTests(DatabaseTestCase):
    async def test_they_cost_few_statements(self) -> None:
        """A bridge that returns after a restart is in hundreds of rooms more than before."""
        server = await SyncServer.start(self.db)
        alice, bob = await server.user("alice"), await server.user("bob")
        since = (await server.update(bob, None))["next_batch"]
        rooms = [await server.create_room(alice) for _ in range(ROOMS)]
        for room_id in rooms:
            await server.rooms.memberships.join(bob, room_id)
            for _ in range(15):
                await server.say(alice, room_id, "hello")
        await server.stop()
        server = await SyncServer.start(self.db)
        runs = self.db.runs

        update = await server.update(bob, since)

        assert self.db.runs - runs < 3 * ROOMS
        joined = update["rooms"]["join"]
        assert joined.keys() == {*rooms}
        counts = [room["unread_notifications"]["notification_count"] for room in joined.values()]
        assert counts == [15] * ROOMS
        await server.stop()
