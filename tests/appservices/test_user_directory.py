"""Users of application services in the user directory."""

from typing import Any, ClassVar

from tests.appservices.support import AppserviceTestCase
from tests.support.actors import Actor
from tests.support.reactor import pause, until


class AppserviceDirectoryTests(AppserviceTestCase):
    settings: ClassVar[dict[str, Any]] = {"user_directory": {"search_all_users": True}}

    async def found(self, actor: Actor, term: str) -> list[str]:
        """The user ids that are found, once the directory has followed the log."""
        readers = self.server.parts.readers
        (reader,) = (each for each in readers if each.name == "user_directory")
        await until(lambda: reader.is_idle)
        answer = await actor.post("/user_directory/search", {"search_term": term})
        return [user["user_id"] for user in answer["results"]]

    async def test_ghost_is_found_in_shared_rooms_only(self) -> None:
        """A bridge has thousands of them, of whom users want those whom they have met."""
        alice, bob = await self.register("alice"), await self.register("bob")
        ghost = await self.ghost("_irc_ghost")
        await ghost.put(f"/profile/{ghost.user_id}/displayname", {"displayname": "Casper (IRC)"})
        while not await self.found(alice, "bob"):
            await pause(0.05)  # accounts enter within seconds
        self.assertEqual(await self.found(alice, "casper"), [])
        room = await alice.create_room()
        await alice.invite(room, ghost)
        await ghost.join(room)

        self.assertEqual(await self.found(alice, "casper"), [ghost.user_id])
        self.assertEqual(await self.found(bob, "casper"), [])

    async def test_application_service_searches_as_its_users(self) -> None:
        """It finds whom they may find, and neither more nor less."""
        alice = await self.register("alice")
        ghost, other = await self.ghost("_irc_ghost"), await self.ghost("_irc_other")
        carol = await self.ghost("_irc_carol")
        room = await alice.create_room()
        for each in (ghost, carol):
            await alice.invite(room, each)
            await each.join(room)

        self.assertEqual(await self.found(ghost, "_irc_carol"), [carol.user_id])
        self.assertEqual(await self.found(other, "_irc_carol"), [])
