"""Connections: increments, waiting, lost responses, and what becomes of an unknown position."""

import psycopg
from twisted.internet.defer import Deferred

from tests.api.sync.sliding.sliding_client import (
    SlidingClient,
    SlidingTestCase,
    texts,
    window,
)


class ConnectionTests(SlidingTestCase):
    async def test_first_response_has_the_newest_rooms(self) -> None:
        """A client shows the top of the list at once."""
        rooms = [await self.alice.create_room(name=f"Room {number}") for number in range(3)]
        await self.alice.say(rooms[0], "hello")
        client = SlidingClient(self.alice, lists={"all": window(0, 1)})

        response = await client.sync()

        self.assertEqual(response["lists"], {"all": {"count": 3}})
        self.assertEqual(response["rooms"].keys(), {rooms[0], rooms[2]})
        room = response["rooms"][rooms[0]]
        self.assertTrue(room["initial"])
        self.assertEqual(room["name"], "Room 0")
        self.assertEqual(room["joined_count"], 1)
        self.assertEqual(texts(room), ["hello"])
        self.assertEqual(room["num_live"], 0)

    async def test_next_response_has_only_what_is_new(self) -> None:
        """A client that is up to date receives little."""
        room = await self.alice.create_room()
        await self.alice.create_room()
        client = SlidingClient(self.alice)
        await client.sync()
        await self.alice.say(room, "news")

        response = await client.sync()

        self.assertEqual(response["rooms"].keys(), {room})
        self.assertNotIn("initial", response["rooms"][room])
        self.assertEqual(texts(response["rooms"][room]), ["news"])
        self.assertEqual(response["rooms"][room]["num_live"], 1)
        self.assertEqual((await client.sync())["rooms"], {})

    async def test_request_waits_for_news(self) -> None:
        """A message arrives as soon as it is sent."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        client = SlidingClient(self.bob)
        await client.sync()
        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=30_000))
        await self.alice.say(room, "hello")

        response = await waiting

        self.assertEqual(texts(response["rooms"][room]), ["hello"])

    async def test_lost_response_is_sent_again(self) -> None:
        """Nothing is lost if the connection breaks, and nothing comes twice."""
        room = await self.alice.create_room()
        client = SlidingClient(self.alice)
        before = (await client.sync())["pos"]
        await self.alice.say(room, "one")
        await client.sync()
        await self.alice.say(room, "two")

        again = await client.sync(pos=before)
        after = await client.sync()

        self.assertEqual(texts(again["rooms"][room]), ["one", "two"])
        self.assertEqual(after["rooms"], {})

    async def test_lost_response_to_a_larger_request_is_made_again(self) -> None:
        """A client that asked for more, and got nothing, asks for the same again."""
        rooms = [await self.alice.create_room() for _ in range(3)]
        client = SlidingClient(self.alice, lists={"all": window(0, 0)})
        before = (await client.sync())["pos"]
        first = await client.sync(lists={"all": window(0, 9)})

        again = await client.sync(pos=before)

        self.assertEqual(first["rooms"].keys(), {rooms[0], rooms[1]})
        self.assertEqual(again["rooms"].keys(), {rooms[0], rooms[1]})

    async def test_unknown_position_is_refused(self) -> None:
        """A client that the server does not know any more begins again."""
        client = SlidingClient(self.alice)
        first = (await client.sync())["pos"]
        await self.alice.create_room()
        await client.sync()
        await client.sync()

        for pos in (first, "s1-1", "garbage", ""):
            if pos:
                await self.assert_refused("M_UNKNOWN_POS", client.sync(pos=pos), 400)
        other = SlidingClient(self.bob)
        await self.assert_refused("M_UNKNOWN_POS", other.sync(pos=client.pos), 400)

    async def test_new_request_ends_the_one_before(self) -> None:
        """A client that changes its mind is not answered by the request that it gave up."""
        await self.alice.create_room()
        client = SlidingClient(self.alice)
        await client.sync()
        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=30_000))
        second = Deferred.fromCoroutine(client.sync(timeout_ms=1))

        self.assertEqual((await waiting)["rooms"], {})
        self.assertEqual((await second)["rooms"], {})

    async def test_new_connection_ends_the_request_of_the_old_one(self) -> None:
        """A client that begins again leaves nothing behind that waits."""
        client, again = SlidingClient(self.alice), SlidingClient(self.alice)
        await client.sync()
        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=30_000))
        await again.sync()

        self.assertEqual((await waiting)["rooms"], {})

    async def test_growing_range_sends_the_other_rooms(self) -> None:
        """A client loads its list in steps."""
        rooms = [await self.alice.create_room() for _ in range(4)]
        client = SlidingClient(self.alice, lists={"all": window(0, 1)})
        await client.sync()

        response = await client.sync(lists={"all": window(0, 9)})

        self.assertEqual(response["rooms"].keys(), {rooms[0], rooms[1]})

    async def test_room_outside_of_the_range_catches_up(self) -> None:
        """A room that comes back into the range has what was said meanwhile."""
        rooms = [await self.alice.create_room() for _ in range(3)]
        client = SlidingClient(self.alice, lists={"all": window(0, 2)})
        await client.sync()
        await client.sync(lists={"all": window(0, 0)})
        await self.alice.say(rooms[0], "one")
        await self.alice.say(rooms[1], "two")

        first = await client.sync()
        await self.alice.say(rooms[0], "three")
        second = await client.sync()

        self.assertEqual(first["rooms"].keys(), {rooms[1]})
        self.assertEqual(texts(second["rooms"][rooms[0]]), ["one", "three"])
        self.assertEqual(second["rooms"][rooms[0]]["num_live"], 1)
        self.assertNotIn("initial", second["rooms"][rooms[0]])


class StoredConnectionTests(SlidingTestCase):
    async def test_connection_goes_on_after_a_restart(self) -> None:
        """An update of the server does not make all clients load everything again."""
        room = await self.alice.create_room()
        await self.alice.create_room()
        client = SlidingClient(self.alice)
        before = (await client.sync())["pos"]
        await self.alice.say(room, "one")
        await client.sync()
        await self.restart_server(self.alice)
        await self.alice.say(room, "two")

        lost = await client.sync(pos=before)
        await self.restart_server(self.alice)
        after = await client.sync()

        self.assertEqual(lost["rooms"].keys(), {room})
        self.assertEqual(texts(lost["rooms"][room]), ["one", "two"])
        self.assertEqual(after["rooms"], {})

    async def test_connection_ends_with_its_device(self) -> None:
        """Nothing is left of a device that logged out."""
        other = await self.log_in(self.alice)
        client = SlidingClient(other)
        await client.sync()
        await self.server_saves()
        await other.post("/logout")
        await self.server_saves()

        self.assertEqual(await self.stored(), 0)

    async def test_device_has_few_connections(self) -> None:
        """A client that begins again and again costs no more than one that does not."""
        clients = [SlidingClient(self.alice, f"c{number}") for number in range(12)]
        for client in clients:
            await client.sync()
        await self.server_saves()

        self.assertEqual(await self.stored(), 10)
        await clients[-1].sync()
        await self.assert_refused("M_UNKNOWN_POS", clients[0].sync())

    async def server_saves(self) -> None:
        await self.server.parts.sync.sliding.connections.save()

    async def stored(self) -> int:
        """The number of stored connections."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute("SELECT count(*) FROM sliding_sync_connections").fetchone()
        assert row is not None
        return int(row[0])
