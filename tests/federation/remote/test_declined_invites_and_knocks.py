"""Taking back what was begun at other servers: knocks, and all of a closed account.

Spec: https://spec.matrix.org/v1.19/server-server-api/#knocking-rooms
"""

import psycopg

from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import FAILURE, always
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph

PASSWORD = "the password of bob"


class DeclinedInviteTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        body = {"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = await self.here.anybody.post("/register", body)
        self.bob = Actor(
            self.http, self.here.url, answer["user_id"], answer["device_id"], answer["access_token"]
        )

    def left(self, server: FakeServer) -> list[str]:
        """The rooms of which a server was told that Bob has left them."""
        return [
            each.path["room_id"] for each in server.received if each.operation == "send_leave_v2"
        ]

    async def close_account(self) -> None:
        identifier = {"type": "m.id.user", "user": self.bob.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        await self.bob.post("/account/deactivate", {"auth": auth})

    async def memberships(self) -> dict[str, list[str]]:
        """Rooms of Bob's, as his client shows them."""
        rooms = (await self.bob.sync()).get("rooms", {})
        return {kind: [*rooms[kind]] for kind in ("join", "invite", "knock") if rooms.get(kind)}

    async def test_a_knock_is_taken_back_by_way_of_the_server_that_took_it(self) -> None:
        """The id of a room tells nothing of it, in version 12 by its very form."""
        for version in ROOM_VERSIONS:
            if not ROOM_VERSIONS[version].knocking:
                continue
            room = self.there.create_room(version, join_rule="knock")
            await self.bob.knock(room.room_id, via=[self.there.name])
            self.assertEqual(await self.memberships(), {"knock": [room.room_id]})

            await self.bob.leave(room.room_id)

            self.assertEqual(self.left(self.there)[-1:], [room.room_id])
            self.assertEqual(await self.memberships(), {})

    async def test_a_knock_is_taken_back_where_the_room_id_names_another_server(self) -> None:
        """Whoever made the room may have left it long ago."""
        third_server = await self.fake()
        made = RoomGraph.create(
            "11", third_server.user("carol"), third_server.name, third_server.key, join_rule="knock"
        )
        self.there.rooms[made.room_id] = made

        await self.bob.knock(made.room_id, via=[self.there.name])
        await self.bob.leave(made.room_id)

        self.assertEqual(self.left(self.there), [made.room_id])

    async def test_a_closed_account_leaves_nothing_at_other_servers(self) -> None:
        """Nobody waits for the answer of somebody who is gone, and no moderator for a visitor."""
        other = await self.fake()
        knocked = self.there.create_room("12", join_rule="knock")
        invited = other.create_room("12", creator="carol", join_rule="invite")
        await self.bob.knock(knocked.room_id, via=[self.there.name])
        await other.invite(self.here.name, invited, other.user("carol"), self.bob.user_id)

        await self.close_account()

        self.assertEqual(self.left(self.there), [knocked.room_id])
        self.assertEqual(self.left(other), [invited.room_id])

    async def test_servers_that_do_not_answer_keep_nobody_from_closing_an_account(self) -> None:
        """What cannot be told is at least known here."""
        invited = self.there.create_room("12", join_rule="invite")
        await self.there.invite(
            self.here.name, invited, self.there.user("mallory"), self.bob.user_id
        )
        self.there.answers["make_leave"] = always(FAILURE)

        await self.close_account()

        with psycopg.connect(self.here.dsn) as connection:
            rows = connection.execute("SELECT membership FROM memberships").fetchall()
        self.assertEqual(rows, [("leave",)])
