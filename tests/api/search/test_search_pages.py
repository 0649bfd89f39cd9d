"""Pages of a search: nothing is lost or comes twice, whatever happens meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from homeserver.search import event_search, index_entries, index_search, scan_width
from homeserver.storage.search import search_blocks
from homeserver.storage.search.search_blocks import BlockQuery, FoundBlock
from tests.api.search.search_test_case import SearchTestCase, ids


class PageTests(SearchTestCase):
    async def test_pages_are_complete(self) -> None:
        """A user who pages through all results sees each once, in either order."""
        sent = [
            await self.alice.say(self.room, f"needle {n} " + "hay " * (n % 9)) for n in range(25)
        ]

        for order in ("recent", "rank"):
            for limit in (1, 7, 25, 100):
                criteria = {"order_by": order, "filter": {"limit": limit}}
                found = await self.all_pages(self.bob, "needle", **criteria)
                self.assertEqual(sorted(found), sorted(sent), criteria)
                if order == "recent":
                    self.assertEqual(found, sent[::-1])
                else:
                    self.assertEqual(set(found[:3]), {sent[0], sent[9], sent[18]})

    async def test_messages_that_arrive_between_pages(self) -> None:
        """New results do not move those of later pages, and are not shown on them."""
        sent = [await self.alice.say(self.room, f"needle {n}") for n in range(12)]
        for order in ("recent", "rank"):
            criteria = {"order_by": order, "filter": {"limit": 5}}
            page = await self.search(self.bob, "needle", **criteria)
            found, counts = ids(page), [page["count"]]
            while "next_batch" in page:
                for _ in range(3):
                    await self.alice.redact(self.room, await self.alice.say(self.room, "needle"))
                    await self.alice.say(self.room, f"needle of {order}")
                token = page["next_batch"]
                page = await self.search(self.bob, "needle", next_batch=token, **criteria)
                found += ids(page)
                counts.append(page["count"])
            self.assertEqual(len(found), len(set(found)))
            self.assertLessEqual(set(sent), set(found))
            self.assertEqual(counts, [len(found)] * len(counts))

    async def test_redactions_between_pages(self) -> None:
        """What is redacted between two pages is not on the second one, and nothing else is lost."""
        sent = [await self.alice.say(self.room, f"needle {n}") for n in range(12)]
        for order in ("recent", "rank"):
            criteria = {"order_by": order, "filter": {"limit": 4}}
            page = await self.search(self.bob, "needle", **criteria)
            victim = next(each for each in sent if each not in ids(page))
            last = ids(page)[-1]
            await self.alice.redact(self.room, victim)
            await self.alice.redact(self.room, last)
            found = ids(page)
            while "next_batch" in page:
                token = page["next_batch"]
                page = await self.search(self.bob, "needle", next_batch=token, **criteria)
                found += ids(page)
            self.assertEqual(sorted(found), sorted(set(sent) - {victim}))
            sent = [each for each in sent if each not in (victim, last)]

    async def test_more_results_than_are_ranked(self) -> None:
        """Blocks of ranked results follow each other without a gap."""
        blocks = self.patch_blocks(5)
        sent = [await self.alice.say(self.room, f"needle {n % 4} " + "x " * n) for n in range(23)]

        found = await self.all_pages(self.bob, "needle", filter={"limit": 3})

        self.assertEqual(sorted(found), sorted(sent))
        self.assertEqual(len(found), 23)
        self.assertEqual(set(found[:5]), set(sent[-5:]))
        self.assertEqual(blocks, 5)

    def patch_blocks(self, size: int) -> int:
        """Have blocks of so few candidates."""
        self.patch(event_search, "BLOCK", size)
        self.patch(event_search, "CHUNK", 2)
        self.patch(event_search, "COUNTED", 4)
        return size

    async def test_results_of_which_most_are_hidden(self) -> None:
        """A user who may see few of many candidates gets to the last one, page by page."""
        self.patch_blocks(5)
        self.patch(event_search, "MAX_EXAMINED", 4)
        first = await self.bob.say(self.room, "needle")
        for _ in range(11):
            await self.alice.say(self.room, "needle")
        content = {"ignored_users": {self.alice.user_id: {}}}
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.put(path, content)
        initial = [
            {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
        ]
        room = await self.alice.create_room(public=True, initial_state=initial)
        carol = await self.register("carol")
        for _ in range(11):
            await carol.join(room)
            await carol.say(room, "needle")
        await self.bob.join(room)

        for order in ("recent", "rank"):
            self.assertEqual(await self.all_pages(self.bob, "needle", order_by=order), [first])

    async def test_more_messages_than_can_be_looked_at_in_time(self) -> None:
        """A user of a large server gets to the oldest result, however little each page reaches."""
        self.patch(index_entries, "MAX_BLOCK", 2)
        sent = []
        for number in range(30):
            text = "needle" if number % 7 == 0 else "hay"
            event_id = await self.alice.say(self.room, f"{text} {number}")
            sent += [event_id] if text == "needle" else []
        await self.server.parts.search.indexing.written()
        self.patch(event_search, "MAX_SECONDS", 0.0)  # one look for each page
        self.patch(index_search, "find_blocks", self.slow_above(3))
        self.patch(scan_width, "FIRST_BLOCKS", 8)
        self.patch(scan_width, "MIN_BLOCKS", 1)

        for order in ("recent", "rank"):
            for limit in (1, 2, 100):
                criteria = {"order_by": order, "filter": {"limit": limit}}
                found = await self.all_pages(self.bob, "needle", **criteria)
                self.assertEqual(found, sent[::-1], criteria)

    def slow_above(self, most: int) -> Callable[..., Awaitable[list[FoundBlock]]]:
        """A statement of a search that is too slow for more than so many blocks."""

        async def find_blocks(db: Any, query: BlockQuery, limit: int) -> list[FoundBlock]:
            with psycopg.connect(self.dsn) as connection:
                rows = connection.execute(
                    "SELECT count(*) FROM search_blocks WHERE last_at >= %s AND first_at <= %s",
                    (query.since, query.before),
                ).fetchall()
            if rows[0][0] > most:
                raise search_blocks.TooSlow
            return await search_blocks.find_blocks(db, query, limit)

        return find_blocks
