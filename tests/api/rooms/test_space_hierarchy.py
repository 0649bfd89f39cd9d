"""The rooms of a space over the API, on one server."""

from typing import Any
from urllib.parse import quote

from tests.support.actors import CLIENT, Actor
from tests.support.server import ServerTestCase

V1 = CLIENT.replace("v3", "v1")


class HierarchyTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.names: dict[str, str] = {}

    async def test_the_tree_is_walked_depth_first_in_its_order(self) -> None:
        """People see the rooms of a club as its moderators arranged them."""
        top = await self.space("top")
        inner, room = await self.space("inner"), await self.room("room")
        await self.add(top, room, order="b")
        await self.add(top, inner, order="a")
        for name in ("one", "two"):
            await self.add(inner, await self.room(name))

        response = await self.hierarchy(self.bob, top)

        self.assertEqual(self.named(response), ["top", "inner", "one", "two", "room"])
        self.assertNotIn("next_batch", response)
        first = response["rooms"][0]
        self.assertEqual((first["room_type"], first["join_rule"]), ("m.space", "public"))
        self.assertEqual([event["state_key"] for event in first["children_state"]], [inner, room])
        child = first["children_state"][0]
        self.assertEqual({*child}, {"type", "state_key", "sender", "content", "origin_server_ts"})
        self.assertEqual(response["rooms"][-1]["children_state"], [])

    async def test_pages_add_up_to_the_whole(self) -> None:
        """An app that scrolls shows each room once, and may ask for a page again."""
        top = await self.space("top")
        for number in range(7):
            await self.add(top, await self.room(f"room{number}"))
        whole = self.named(await self.hierarchy(self.bob, top))

        pages = [await self.hierarchy(self.bob, top, limit=3)]
        while "next_batch" in pages[-1]:
            since = pages[-1]["next_batch"]
            pages.append(await self.hierarchy(self.bob, top, limit=3, since=since))
        again = await self.hierarchy(self.bob, top, limit=3, since=pages[0]["next_batch"])

        self.assertEqual([len(self.named(page)) for page in pages], [3, 3, 2])
        self.assertEqual([name for page in pages for name in self.named(page)], whole)
        self.assertEqual(again, pages[1])

    async def test_loops_end(self) -> None:
        """Two spaces that are in each other are each shown once."""
        one, other = await self.space("one"), await self.space("other")
        await self.add(one, other)
        await self.add(other, one)
        await self.add(other, other)

        response = await self.hierarchy(self.bob, one)

        self.assertEqual(self.named(response), ["one", "other"])

    async def test_depth_and_suggestions_narrow_the_tree(self) -> None:
        """A first look shows a few rooms only."""
        top, inner, deep = await self.space("top"), await self.space("inner"), await self.room("d")
        await self.add(top, inner, suggested=True)
        await self.add(inner, deep)
        await self.add(top, await self.room("other"))

        self.assertEqual(self.named(await self.hierarchy(self.bob, top, max_depth=0)), ["top"])
        shallow = await self.hierarchy(self.bob, top, max_depth=1)
        suggested = await self.hierarchy(self.bob, top, suggested_only="true")

        self.assertEqual(self.named(shallow), ["top", "inner", "other"])
        self.assertEqual(self.named(suggested), ["top", "inner"])

    async def test_a_removed_child_is_gone(self) -> None:
        """A room that left the club is not shown as one of its rooms."""
        top, room = await self.space("top"), await self.room("room")
        await self.add(top, room)
        await self.alice.set_state(top, "m.space.child", {}, room)

        response = await self.hierarchy(self.bob, top)

        self.assertEqual(self.named(response), ["top"])
        self.assertEqual(response["rooms"][0]["children_state"], [])

    async def test_only_rooms_with_a_way_in_are_shown(self) -> None:
        """A secret room does not show to strangers, even if it is listed in the space."""
        top = await self.space("top")
        rules = {
            "secret": {"join_rule": "invite"},
            "invited": {"join_rule": "invite"},
            "knockable": {"join_rule": "knock"},
            "members'": {
                "join_rule": "restricted",
                "allow": [{"type": "m.room_membership", "room_id": top}],
            },
            "readable": {"join_rule": "invite"},
            "banned": {"join_rule": "public"},
        }
        rooms = {}
        for name, rule in rules.items():
            rooms[name] = await self.room(name)
            await self.alice.set_state(rooms[name], "m.room.join_rules", rule)
            await self.add(top, rooms[name])
        await self.alice.invite(rooms["invited"], self.bob)
        await self.alice.ban(rooms["banned"], self.bob)
        readable = {"history_visibility": "world_readable"}
        await self.alice.set_state(rooms["readable"], "m.room.history_visibility", readable)

        stranger = self.named(await self.hierarchy(self.bob, top))
        await self.bob.join(top)
        member = self.named(await self.hierarchy(self.bob, top))
        owner = self.named(await self.hierarchy(self.alice, top))

        self.assertEqual(stranger, ["top", "invited", "knockable", "readable"])
        self.assertEqual(member, ["top", "invited", "knockable", "members'", "readable"])
        self.assertEqual(owner, ["top", *rules])

    async def test_who_may_not_know_the_space_is_refused(self) -> None:
        """A user cannot find out by its id whether a space exists."""
        secret = await self.alice.create_room(creation_content={"type": "m.space"})

        for room in (secret, "!unknown:example.org", "nonsense"):
            attempt = self.hierarchy(self.bob, room)
            await self.assert_refused("M_FORBIDDEN", attempt, 403)

    async def test_wrong_parameters_are_refused(self) -> None:
        """A client gets an error, and starts again where a token is unknown."""
        top = await self.space("top")
        for name in ("a", "b"):
            await self.add(top, await self.room(name))
        since = (await self.hierarchy(self.bob, top, limit=1))["next_batch"]

        for query in (
            {"limit": 0},
            {"max_depth": -1},
            {"suggested_only": "perhaps"},
            {"since": "nonsense"},
            {"since": f"{since}99"},
            {"since": since, "max_depth": 1},
            {"since": since, "suggested_only": "true"},
        ):
            attempt = self.hierarchy(self.bob, top, **query)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        attempt = self.hierarchy(self.alice, top, since=since)
        await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def test_user_who_lost_access_between_pages_gets_no_more(self) -> None:
        """A token gives no access to rooms that became private."""
        top, room = await self.space("top"), await self.room("room")
        await self.add(top, room)
        since = (await self.hierarchy(self.bob, top, limit=1))["next_batch"]
        self.assertEqual(self.named(await self.hierarchy(self.bob, top, since=since)), ["room"])
        await self.alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})

        response = await self.hierarchy(self.bob, top, since=since)

        self.assertEqual(response, {"rooms": []})

    async def test_a_user_keeps_a_few_walks_and_no_more(self) -> None:
        """A user who repeats requests does not evict the walks of other users."""
        top = await self.space("top")
        await self.add(top, await self.room("room"))
        tokens = [(await self.hierarchy(self.bob, top, limit=1))["next_batch"] for _ in range(6)]

        await self.hierarchy(self.bob, top, since=tokens[-1])

        attempt = self.hierarchy(self.bob, top, since=tokens[0])
        await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def space(self, name: str) -> str:
        """A public space."""
        return await self.room(name, creation_content={"type": "m.space"})

    async def room(self, name: str, **how: Any) -> str:
        """A public room."""
        room = await self.alice.create_room(public=True, name=name, **how)
        self.names[room] = name
        return room

    async def add(self, space: str, room: str, **content: Any) -> None:
        """Make a room part of a space."""
        content = {"via": ["example.org"], **content}
        await self.alice.set_state(space, "m.space.child", content, room)

    async def hierarchy(self, actor: Actor, room: str, **query: Any) -> Any:
        """A page of the tree; `since` is the parameter `from`."""
        if "since" in query:
            query["from"] = query.pop("since")
        path = f"{V1}/rooms/{quote(room)}/hierarchy"
        return await actor.request("GET", path, query=query)

    def named(self, response: Any) -> list[str]:
        """The names of the rooms on a page."""
        return [self.names[room["room_id"]] for room in response["rooms"]]
