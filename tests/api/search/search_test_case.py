"""A test case with two users in a room, and shortcuts for searching."""

from typing import Any

from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class SearchTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def search(
        self, actor: Actor, term: str, *, next_batch: str | None = None, **criteria: Any
    ) -> Any:
        """The answer for the category `room_events`."""
        query = {} if next_batch is None else {"next_batch": next_batch}
        body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
        answer = await actor.post("/search", body, **query)
        return answer["search_categories"]["room_events"]

    async def found(self, actor: Actor, term: str, **criteria: Any) -> list[str]:
        """The ids of the results of the first page."""
        return ids(await self.search(actor, term, **criteria))

    async def all_pages(self, actor: Actor, term: str, **criteria: Any) -> list[str]:
        """The ids of the results of all pages."""
        page = await self.search(actor, term, **criteria)
        results = ids(page)
        while "next_batch" in page:
            page = await self.search(actor, term, next_batch=page["next_batch"], **criteria)
            results += ids(page)
        return results


def ids(page: Any) -> list[str]:
    """The event ids of a page."""
    return [each["result"]["event_id"] for each in page["results"]]
