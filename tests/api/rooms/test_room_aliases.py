"""Room aliases over the API."""

from typing import Any
from urllib.parse import quote

from homeserver.rooms.discovery import aliases
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

ALIAS = "/directory/room/%23tea:example.org"


class AliasTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)

    async def test_alias_is_found_without_login(self) -> None:
        """A user can look up an alias before logging in."""
        await self._make()

        found = await self.anybody.get(ALIAS)

        self.assertEqual(found, {"room_id": self.room, "servers": ["example.org"]})
        self.assertEqual(await self.bob.join("#tea:example.org"), self.room)

    async def test_taken_and_impossible_aliases_are_refused(self) -> None:
        """A name leads to one room, and belongs to this server."""
        await self._make()
        body = {"room_id": self.room}

        await self.assert_refused("M_UNKNOWN", self.alice.put(ALIAS, body), 409)
        for alias in ("#tea:elsewhere.example", "tea", "#tea", "!tea:example.org"):
            path = f"/directory/room/{quote(alias)}"
            await self.assert_refused("M_INVALID_PARAM", self.alice.put(path, body), 400)
        await self.assert_refused("M_BAD_JSON", self.alice.put(ALIAS, {}), 400)
        await self.assert_refused("M_BAD_JSON", self.alice.put(ALIAS, {"room_id": "x"}), 400)

    async def test_aliases_of_a_room_are_bounded(self) -> None:
        """A user cannot take all names for one room."""
        self.patch(aliases, "MAX_OF_ROOM", 1)
        await self._make()

        path = f"/directory/room/{quote('#coffee:example.org')}"
        await self.assert_refused("M_TOO_LARGE", self.alice.put(path, {"room_id": self.room}), 413)

    async def test_only_members_name_a_room(self) -> None:
        """A stranger gives no names to other people's rooms."""
        await self.assert_refused("M_FORBIDDEN", self._make(self.bob), 403)

    async def test_unknown_alias_is_not_found(self) -> None:
        """A client can distinguish a mistyped name from an invalid one."""
        await self.assert_refused("M_NOT_FOUND", self.anybody.get(ALIAS), 404)
        await self.assert_refused("M_NOT_FOUND", self.alice.delete(ALIAS), 404)
        await self.assert_refused(
            "M_INVALID_PARAM", self.anybody.get("/directory/room/nonsense"), 400
        )

    async def test_alias_is_deleted_by_its_maker_or_by_power(self) -> None:
        """Others cannot take a room's name away."""
        await self.bob.join(self.room)
        await self._make(self.bob)
        carol = await self.register("carol")
        await carol.join(self.room)

        await self.assert_refused("M_FORBIDDEN", carol.delete(ALIAS), 403)
        await self.bob.delete(ALIAS)
        await self.assert_refused("M_NOT_FOUND", self.anybody.get(ALIAS), 404)
        await self._make(self.bob)
        await self.alice.delete(ALIAS)
        await self._make(self.bob)
        await (await self.register_admin("admin")).delete(ALIAS)

    async def test_deleted_alias_is_removed_from_the_room(self) -> None:
        """The room does not announce an alias that does not exist."""
        await self._make()
        await self.alice.put("/directory/room/%23chai:example.org", {"room_id": self.room})
        both = {"alias": "#tea:example.org", "alt_aliases": ["#chai:example.org"]}
        await self.alice.set_state(self.room, "m.room.canonical_alias", both)

        await self.alice.delete(ALIAS)
        one = await self.alice.state(self.room, "m.room.canonical_alias")
        await self.alice.delete("/directory/room/%23chai:example.org")
        none = await self.alice.state(self.room, "m.room.canonical_alias")

        self.assertEqual(one, {"alt_aliases": ["#chai:example.org"]})
        self.assertEqual(none, {"alt_aliases": []})

    async def test_alias_is_deleted_though_the_room_still_announces_it(self) -> None:
        """The creator of an alias may delete it, without power in the room."""
        await self.bob.join(self.room)
        await self._make(self.bob)
        canonical = {"alias": "#tea:example.org"}
        await self.alice.set_state(self.room, "m.room.canonical_alias", canonical)

        await self.bob.delete(ALIAS)

        await self.assert_refused("M_NOT_FOUND", self.anybody.get(ALIAS), 404)
        self.assertEqual(await self.bob.state(self.room, "m.room.canonical_alias"), canonical)

    async def test_members_see_the_aliases_of_their_room(self) -> None:
        """A room's settings list its names; strangers see them only if all the world may."""
        await self._make()
        path = f"/rooms/{self.room}/aliases"

        self.assertEqual(await self.alice.get(path), {"aliases": ["#tea:example.org"]})
        await self.assert_refused("M_FORBIDDEN", self.bob.get(path), 403)
        readable = {"history_visibility": "world_readable"}
        await self.alice.set_state(self.room, "m.room.history_visibility", readable)
        self.assertEqual(await self.bob.get(path), {"aliases": ["#tea:example.org"]})

    async def _make(self, actor: Actor | None = None) -> Any:
        return await (actor or self.alice).put(ALIAS, {"room_id": self.room})
