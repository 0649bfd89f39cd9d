"""The servers in rooms that are not in memory."""

from federation.sending.room_servers import RoomServers
from homeserver.rooms.room.changes import StateChanged
from tests.support.organisations import FederationTestCase


class RoomServersTests(FederationTestCase):
    """A room of another server, which is not in memory here."""

    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        room = self.there.create_room()
        await self.alice.join(room.room_id, via=[self.there.name])
        parts = self.here.server.parts
        self.registry = parts.room_core.registry
        self.number = (await self.registry.get(room.room_id)).room_nid
        self.patch(self.registry, "loaded", lambda number: None)
        self.servers = RoomServers(self.registry, parts.db)

    async def test_they_are_read_once(self) -> None:
        """Contacts on other servers see users come online after a restart, before any event."""
        assert self.servers.known([self.number]) == (set(), [self.number])

        await self.servers.load([self.number])

        assert self.servers.known([self.number]) == ({self.there.name}, [])

    async def test_they_are_read_again_when_the_room_has_changed(self) -> None:
        """A server that joined the room gets events, one that left does not."""
        await self.servers.load([self.number])
        self.servers.apply([StateChanged(1, self.number, b"")])

        assert self.servers.known([self.number]) == (set(), [self.number])
