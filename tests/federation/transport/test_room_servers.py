"""The servers in rooms that have not been used for long."""

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
        self.room_nid = (await self.registry.get(room.room_id)).room_nid
        self.patch(self.registry, "loaded", lambda number: None)
        self.servers = RoomServers(self.registry, parts.db)

    async def test_they_are_read_once(self) -> None:
        """After a restart, remote users see who comes online before any message is sent."""
        assert self.servers.known([self.room_nid]) == (set(), [self.room_nid])

        await self.servers.load([self.room_nid])

        assert self.servers.known([self.room_nid]) == ({self.there.name}, [])

    async def test_changes_of_devices_reach_them(self) -> None:
        """Servers in rooms that nobody has used for long receive them, too."""
        assert await self.servers.in_all([self.room_nid]) == {self.there.name}

    async def test_they_are_read_again_when_the_room_has_changed(self) -> None:
        """A server that joined the room gets presence, one that left does not."""
        await self.servers.load([self.room_nid])
        self.servers.apply([StateChanged(1, self.room_nid, b"")])

        assert self.servers.known([self.room_nid]) == (set(), [self.room_nid])
