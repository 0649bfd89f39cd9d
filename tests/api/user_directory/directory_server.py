"""A server whose users search for each other."""

from typing import Any

from tests.support.actors import Actor
from tests.support.reactor import until
from tests.support.server import ServerTestCase

PATH = "/user_directory/search"


class UserDirectoryTestCase(ServerTestCase):
    """Alice and Bob have accounts, and share no room."""

    transcodes = True

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def search(self, actor: Actor, term: str, **body: Any) -> Any:
        """The response to a search, once the directory has followed the log."""
        await self.settle()
        return await actor.post(PATH, {"search_term": term, **body})

    async def found(self, actor: Actor, term: str, **body: Any) -> list[str]:
        """The localparts of the users who are found, in order."""
        results = (await self.search(actor, term, **body))["results"]
        return [str(user["user_id"])[1:].partition(":")[0] for user in results]

    async def settle(self) -> None:
        """Wait until nothing waits to be indexed."""
        (reader,) = (each for each in self.server.parts.readers if each.name == "user_directory")
        await until(lambda: reader.is_idle)

    async def meet(self, first: Actor, *others: Actor, **options: Any) -> str:
        """A new room of these users, private by default."""
        room = await first.create_room(**{"preset": "private_chat", **options})
        for other in others:
            await first.invite(room, other)
            await other.join(room)
        return room

    async def rename(self, actor: Actor, name: str) -> None:
        await actor.put(f"/profile/{actor.user_id}/displayname", {"displayname": name})

    async def name_in(self, room: str, actor: Actor, name: str | None) -> str:
        """Give a user another name in one room; returns the id of the event."""
        content = {"membership": "join"} | ({} if name is None else {"displayname": name})
        return await actor.set_state(room, "m.room.member", content, actor.user_id)
