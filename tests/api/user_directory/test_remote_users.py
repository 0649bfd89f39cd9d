"""Users of other servers in the user directory: by the names that the searcher may see."""

from typing import Any

from tests.support.actors import Actor
from tests.support.organisations import FederationTestCase, Organisation
from tests.support.reactor import pause, until


class RemoteUserTests(FederationTestCase):
    """Alice and Carol are of one server, Bob of another one."""

    async def setUp(self) -> None:
        await super().setUp()
        self.here, self.there = await self.organisation(), await self.organisation()
        self.alice = await self.here.register("alice")
        self.carol = await self.here.register("carol")
        self.bob = await self.there.register("bob")

    async def results(self, actor: Actor, term: str) -> Any:
        await settle(self.here)
        return (await actor.post("/user_directory/search", {"search_term": term}))["results"]

    async def until_found(self, actor: Actor, term: str, names: list[str]) -> None:
        """Wait until exactly users with these names are found."""
        for _ in range(200):
            found = [user.get("display_name") for user in await self.results(actor, term)]
            if found == names:
                return
            await pause(0.05)
        self.fail(f"{found} are found, not {names}")

    async def private_room(self, name: str) -> str:
        """A room of Carol and Bob, in which he has another name."""
        room = await self.carol.create_room(preset="private_chat")
        await self.carol.invite(room, self.bob)
        await self.bob.join(room, via=[self.here.name])
        await self.name_in(room, name)
        return room

    async def name_in(self, room: str, name: str) -> str:
        content = {"membership": "join", "displayname": name}
        return await self.bob.set_state(room, "m.room.member", content, self.bob.user_id)

    async def test_name_of_a_private_room_is_seen_only_in_it(self) -> None:
        """Neither shown to others, nor found by them: that would tell it, too."""
        public = await self.carol.create_room(preset="public_chat")
        await self.bob.join(public, via=[self.here.name])
        await self.private_room("Secret Agent")

        await self.until_found(self.carol, "secret", ["Secret Agent"])
        await self.until_found(self.alice, "bob", ["bob"])
        self.assertEqual(await self.results(self.alice, "secret"), [])
        self.assertEqual(await self.results(self.alice, "agent"), [])

    async def test_user_in_private_rooms_only_is_not_found_by_others(self) -> None:
        """Nor by the user id."""
        await self.private_room("Bob")

        await self.until_found(self.carol, "@bob", ["Bob"])
        self.assertEqual(await self.results(self.alice, "bob"), [])
        self.assertEqual(await self.results(self.alice, self.bob.user_id), [])

    async def test_room_that_becomes_private_takes_its_names_with_it(self) -> None:
        """The name then comes from another public room, if there is one."""
        first = await self.carol.create_room(preset="public_chat")
        second = await self.carol.create_room(preset="public_chat")
        for room, name in ((first, "Robert"), (second, "Bobby")):
            await self.bob.join(room, via=[self.here.name])
            await self.name_in(room, name)
        await self.until_found(self.alice, "@bob", ["Bobby"])

        await self.carol.set_state(second, "m.room.join_rules", {"join_rule": "invite"})

        await self.until_found(self.alice, "@bob", ["Robert"])
        self.assertEqual(await self.results(self.alice, "bobby"), [])
        await self.carol.set_state(first, "m.room.join_rules", {"join_rule": "invite"})
        await self.until_found(self.alice, "@bob", [])

    async def test_redacted_name_is_gone(self) -> None:
        """Also if the server was not there to follow."""
        room = await self.private_room("Insult")
        content = {"membership": "join", "displayname": "Insult"}
        event_id = await self.bob.set_state(room, "m.room.member", content, self.bob.user_id)
        await self.until_found(self.carol, "insult", ["Insult"])

        await self.carol.redact(room, event_id)

        await self.until_found(self.carol, "@bob", [None])
        self.assertEqual(await self.results(self.carol, "insult"), [])

    async def test_members_of_a_room_that_this_server_has_left_are_gone(self) -> None:
        """Nobody here knows who is there now; they are back when somebody joins again."""
        public = await self.bob.create_room(preset="public_chat")
        await self.carol.join(public, via=[self.there.name])
        await self.until_found(self.alice, "bob", ["bob"])

        await self.carol.leave(public)
        await self.until_found(self.alice, "bob", [])

        await self.carol.join(public, via=[self.there.name])
        await self.until_found(self.alice, "bob", ["bob"])

    async def test_member_of_a_partial_room_is_found_when_the_members_are_known(self) -> None:
        """Of a large room a server first gets only what the join needs."""
        dora = await self.there.register("dora")
        public = await self.bob.create_room(preset="public_chat")
        await dora.join(public)

        await self.alice.join(public, via=[self.there.name])

        await self.until_found(self.carol, "dora", ["dora"])


async def settle(organisation: Organisation) -> None:
    """Wait until nothing waits to be indexed."""
    readers = organisation.server.parts.readers
    (reader,) = (each for each in readers if each.name == "user_directory")
    await until(lambda: reader.is_idle)
