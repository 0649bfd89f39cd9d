"""Rooms in common with another user over the API."""

from typing import Any

from homeserver.protocol.proposals.unstable_names import MUTUAL_ROOMS
from homeserver.rooms.discovery import mutual_rooms
from tests.support.actors import CLIENT, Actor
from tests.support.server import ServerTestCase

PATH = CLIENT.replace("v3", "v1") + "/mutual_rooms"


class MutualRoomsTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def mutual(self, actor: Actor, **query: Any) -> Any:
        return await actor.request("GET", PATH, query=query)

    async def test_rooms_are_those_where_both_are(self) -> None:
        """A client shows the shared rooms in a user's profile."""
        shared = await self.alice.create_room(public=True)
        left = await self.alice.create_room(public=True)
        await self.alice.create_room(invite=[self.bob])
        for room in (shared, left):
            await self.bob.join(room)
        await self.bob.leave(left)

        for actor, other in ((self.alice, self.bob), (self.bob, self.alice)):
            response = await self.mutual(actor, user_id=other.user_id)
            self.assertEqual(response, {"joined": [shared], "count": 1})

    async def test_many_rooms_come_page_by_page(self) -> None:
        """A long acquaintance does not end in one huge answer."""
        self.patch(mutual_rooms, "PAGE", 2)
        rooms = [await self.alice.create_room(public=True) for _ in range(5)]
        for room in rooms:
            await self.bob.join(room)
        found: list[str] = []
        query: dict[str, Any] = {"user_id": self.bob.user_id}

        for size in (2, 2, 1):
            page = await self.mutual(self.alice, **query)
            self.assertEqual((len(page["joined"]), page["count"]), (size, 5))
            found += page["joined"]
            query["from"] = page.get("next_batch")

        self.assertEqual(sorted(found), sorted(rooms))
        self.assertIsNone(query["from"])

    async def test_clients_of_the_proposal_get_all_pages(self) -> None:
        """They know the path and the names of the tokens from before the release."""
        self.patch(mutual_rooms, "PAGE", 1)
        rooms = [await self.alice.create_room(public=True) for _ in range(2)]
        for room in rooms:
            await self.bob.join(room)

        first = await self.unstable(user_id=self.bob.user_id)
        last = await self.unstable(user_id=self.bob.user_id, batch_token=first["next_batch_token"])

        self.assertEqual(sorted(first["joined"] + last["joined"]), sorted(rooms))
        self.assertNotIn("next_batch_token", last)

    async def unstable(self, **query: Any) -> Any:
        """A page, as Alice's client of the proposal requests it."""
        return await self.alice.request("GET", MUTUAL_ROOMS, query=query)

    async def test_unknown_user_shares_no_rooms(self) -> None:
        """The response does not reveal whether an account exists."""
        response = await self.mutual(self.alice, user_id="@nobody:example.org")

        self.assertEqual(response, {"joined": [], "count": 0})

    async def test_nonsense_is_refused(self) -> None:
        """A wrong parameter gets an error, and is not guessed."""
        for query in (
            {},
            {"user_id": self.alice.user_id},
            {"user_id": "bob"},
            {"user_id": "@:example.org"},
            {"user_id": self.bob.user_id, "from": "x"},
        ):
            await self.assert_refused("M_INVALID_PARAM", self.mutual(self.alice, **query), 400)
