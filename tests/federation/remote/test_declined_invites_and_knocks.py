"""Declined invites and withdrawn knocks at other servers, also of deactivated accounts.

Spec: https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
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
        """The rooms that Bob has left, as a server was notified."""
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

    async def test_a_knock_is_withdrawn_through_the_server_that_received_it(self) -> None:
        """A room id of version 12 names no server."""
        for version in ROOM_VERSIONS:
            if not ROOM_VERSIONS[version].knocking:
                continue
            room = self.there.create_room(version, join_rule="knock")
            await self.bob.knock(room.room_id, via=[self.there.name])
            self.assertEqual(await self.memberships(), {"knock": [room.room_id]})

            await self.bob.leave(room.room_id)

            self.assertEqual(self.left(self.there)[-1:], [room.room_id])
            self.assertEqual(await self.memberships(), {})

    async def test_a_knock_is_withdrawn_where_the_room_id_names_another_server(self) -> None:
        """The server that made the room may have left it."""
        third_server = await self.fake()
        made = RoomGraph.create(
            "11", third_server.user("carol"), third_server.name, third_server.key, join_rule="knock"
        )
        self.there.rooms[made.room_id] = made

        await self.bob.knock(made.room_id, via=[self.there.name])
        await self.bob.leave(made.room_id)

        self.assertEqual(self.left(self.there), [made.room_id])

    async def test_a_deactivated_account_leaves_nothing_at_other_servers(self) -> None:
        """No user waits for a reply of the account, and no moderator for the knock."""
        other = await self.fake()
        knocked = self.there.create_room("12", join_rule="knock")
        invited = other.create_room("12", creator="carol", join_rule="invite")
        await self.bob.knock(knocked.room_id, via=[self.there.name])
        await other.invite(self.here.name, invited, other.user("carol"), self.bob.user_id)

        await self.close_account()

        self.assertEqual(self.left(self.there), [knocked.room_id])
        self.assertEqual(self.left(other), [invited.room_id])

    async def test_unreachable_servers_do_not_prevent_deactivation(self) -> None:
        """The memberships end at least on this server."""
        invited = self.there.create_room("12", join_rule="invite")
        await self.there.invite(
            self.here.name, invited, self.there.user("mallory"), self.bob.user_id
        )
        self.there.answers["make_leave"] = always(FAILURE)

        await self.close_account()

        with psycopg.connect(self.here.dsn) as connection:
            rows = connection.execute("SELECT membership FROM memberships").fetchall()
        self.assertEqual(rows, [("leave",)])
