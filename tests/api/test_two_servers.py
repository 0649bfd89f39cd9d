"""Two homeservers in one process know nothing of each other."""

from twisted.internet import reactor

from homeserver.app import Homeserver
from tests.support.actors import Client
from tests.support.postgres import drop_database, fresh_database
from tests.support.server import ServerTestCase


class TwoServersTests(ServerTestCase):
    async def test_they_share_nothing(self) -> None:
        """Federation tests, and programs that embed servers, can run several in one process."""
        alice = await self.register("alice")
        room_id = await alice.create_room(preset="public_chat")
        dsn = fresh_database()
        self.addCleanup(drop_database, dsn)
        other = await self._start_another(dsn)

        try:
            anybody = Client(self._http, f"http://127.0.0.1:{other.ports[0]}")
            user = {"username": "alice", "auth": {"type": "m.login.dummy"}}
            namesake = self._actor(await anybody.post("/register", user))
            namesake.url = anybody.url
            own_room = await namesake.create_room()
            rooms = [await actor.get("/joined_rooms") for actor in (alice, namesake)]
            namesake.token, alice.token = alice.token, namesake.token

            self.assertEqual(
                [response["joined_rooms"] for response in rooms], [[room_id], [own_room]]
            )
            await self.assert_refused("M_UNKNOWN_TOKEN", namesake.get("/account/whoami"))
            await self.assert_refused("M_UNKNOWN_TOKEN", alice.get("/account/whoami"))
        finally:
            await other.stop()

    async def _start_another(self, dsn: str) -> Homeserver:
        self.dsn, own = dsn, self.dsn
        try:
            server = Homeserver(self._settings(), reactor)
        finally:
            self.dsn = own
        await server.start()
        return server
