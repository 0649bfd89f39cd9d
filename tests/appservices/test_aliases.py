"""Aliases in the namespaces of application services."""

from typing import Any
from urllib.parse import quote

from tests.appservices.support import AppserviceTestCase, registration
from tests.support.actors import Actor

SHARED = [{"exclusive": False, "regex": "#shared_.*"}]


def _path(alias: str) -> str:
    return f"/directory/room/{quote(alias)}"


class AliasTests(AppserviceTestCase):
    registrations = (
        registration("irc"),
        registration("xmpp"),
        registration("both", namespaces={"aliases": SHARED}),
    )

    async def _create(self, actor: Actor, name: str, room: str | None = None) -> Any:
        room = room or await actor.create_room()
        return await actor.put(_path(f"#{name}:example.org"), {"room_id": room})

    async def test_aliases_of_a_bridge_are_its_own(self) -> None:
        """Nobody sends the users of a bridged channel into a room of theirs."""
        alice = await self.register("alice")

        await self.assert_refused("M_EXCLUSIVE", self._create(alice, "_irc_matrix"), 400)
        await self.assert_refused(
            "M_EXCLUSIVE", alice.create_room(room_alias_name="_irc_matrix"), 400
        )
        await self.assert_refused("M_EXCLUSIVE", self._create(self.bot("xmpp"), "_irc_matrix"))
        await self._create(self.bot(), "_irc_matrix")
        await self.bot().create_room(room_alias_name="_irc_other")
        await self._create(alice, "shared_free")

    async def test_a_bridge_creates_aliases_of_its_namespaces_only(self) -> None:
        """Ghosts do not take names of the rest of the server."""
        ghost = await self.ghost("_irc_bob")

        await self.assert_refused("M_EXCLUSIVE", self._create(ghost, "free"), 400)
        await self.assert_refused("M_EXCLUSIVE", ghost.create_room(room_alias_name="free"), 400)
        await self._create(self.bot("both"), "shared_1")

    async def test_a_bridge_names_rooms_that_it_is_not_in(self) -> None:
        """It has full control over its names; a user who asks it for one may be alone there."""
        alice = await self.register("alice")
        room = await alice.create_room()

        await self._create(self.bot(), "_irc_matrix", room)

        found = await alice.get(_path("#_irc_matrix:example.org"))
        self.assertEqual(found["room_id"], room)
        unknown = self._create(self.bot(), "_irc_other", "!unknown:example.org")
        await self.assert_refused("M_NOT_FOUND", unknown, 404)

    async def test_a_bridge_deletes_its_aliases(self) -> None:
        """Whichever of its users created them, and nobody else does."""
        alice = await self.register("alice")
        ghost = await self.ghost("_irc_bob")
        room = await ghost.create_room(
            invite=[alice], power_level_content_override={"users": {alice.user_id: 100}}
        )
        await alice.join(room)
        await self._create(ghost, "_irc_matrix", room)
        path = _path("#_irc_matrix:example.org")

        await self.assert_refused("M_EXCLUSIVE", alice.delete(path), 400)
        await self.assert_refused("M_EXCLUSIVE", self.bot("xmpp").delete(path), 400)
        self.assertEqual((await alice.get(path))["room_id"], room)
        await self.bot().delete(path)
        await self.assert_refused("M_NOT_FOUND", alice.get(path), 404)

    async def test_a_shared_namespace_gives_no_power(self) -> None:
        """A bridge does not delete what others created in it."""
        alice = await self.register("alice")
        await self._create(alice, "shared_1")

        refused = self.bot("both").delete(_path("#shared_1:example.org"))
        await self.assert_refused("M_FORBIDDEN", refused, 403)

    async def test_a_bridge_may_use_the_tokens_of_its_users(self) -> None:
        """Bridges that encrypt are logged in as their bot."""
        answer = await self.bot().post(
            "/login",
            {
                "type": "m.login.application_service",
                "identifier": {"type": "m.id.user", "user": "_irc_bot"},
            },
        )
        bot = self._actor(answer)

        await self._create(bot, "_irc_matrix")
        await bot.delete(_path("#_irc_matrix:example.org"))
        await self.assert_refused("M_EXCLUSIVE", self._create(bot, "_xmpp_matrix"), 400)

    async def test_an_administrator_deletes_any_alias(self) -> None:
        """The operator cleans up after a bridge."""
        admin = await self.register_admin("admin")
        await self._create(self.bot(), "_irc_matrix")

        await admin.delete(_path("#_irc_matrix:example.org"))
