"""Searches that are many, long or slow: other requests go on, and each gets a proper response."""

from itertools import pairwise
from typing import Any

import psycopg
from twisted.internet.defer import Deferred, DeferredList

from homeserver.concurrency import cooperative
from homeserver.protocol.search.search_term import SearchTerm
from homeserver.search import index_entries, indexed_events, searches
from homeserver.storage.search import search_blocks
from homeserver.streams.positions import MAX_POSITION
from tests.api.search.search_test_case import SearchTestCase, ids
from tests.support.refused import Refused


class LimitTests(SearchTestCase):
    async def test_a_user_with_many_searches_at_once(self) -> None:
        """A user's own searches wait for each other; too many are refused, and others are not."""
        event_id = await self.alice.say(self.room, "needle")
        running = [
            Deferred.fromCoroutine(self.search(self.alice, "needle"))
            for _ in range(searches.MAX_WAITING + 10)
        ]
        self.assertEqual(await self.found(self.bob, "needle"), [event_id])

        outcomes: Any = await DeferredList(running, consumeErrors=True)

        found = [result for succeeded, result in outcomes if succeeded]
        refused = [result.value for succeeded, result in outcomes if not succeeded]
        self.assertEqual(len(found) + len(refused), len(running))
        self.assertGreater(len(found), searches.MAX_WAITING)
        self.assertTrue(all(ids(page) == [event_id] for page in found))
        self.assertTrue(refused)
        for error in refused:
            assert isinstance(error, Refused)
            self.assertEqual((error.status, error.errcode), (429, "M_LIMIT_EXCEEDED"))

    async def test_a_search_that_takes_too_long(self) -> None:
        """A client receives an error where nothing could be searched, and not an empty page."""
        await self.alice.say(self.room, "needle")
        self.assertEqual(len(await self.found(self.alice, "needle")), 1)
        await self.server.parts.search.indexing.written()
        with psycopg.connect(self.dsn) as connection:
            # Each statement of a search waits until the lock is released.
            connection.execute("LOCK TABLE search_blocks")
            self.patch(search_blocks, "TIMEOUT_MS", 50)

            await self.assert_refused("M_UNKNOWN", self.search(self.alice, "needle"), 503)

        self.assertEqual(len(await self.found(self.alice, "needle")), 1)

    async def test_long_texts_leave_turns_to_others(self) -> None:
        """A user who fills a room with the longest texts delays others by one of them at most."""
        self.patch(cooperative, "SLICE_SECONDS", 0.0)
        steps = self.watch_long_steps()
        search = self.server.parts.search
        words = " ".join(f"{number:x}" for number in range(2_000))
        for number in range(4):
            await self.alice.say(self.room, f"needle {number} {words}")
        steps.clear()  # messages come one by one

        await search.indexing.written()
        found = await self.found(self.bob, "needle 7", order_by="rank")
        with psycopg.connect(self.dsn) as connection:
            ((room_nid,),) = connection.execute("SELECT DISTINCT room FROM search_blocks")
        await search.source.load_room(room_nid, -MAX_POSITION)

        self.assertEqual(len(found), 4)
        done = {step: steps.count(step) for step in ("signature", "rank", "matches", "numbers")}
        self.assertTrue(all(count >= 4 for count in done.values()), done)
        for step, following in pairwise(steps):
            self.assertTrue(step == "turn" or step != following, steps)

    def watch_long_steps(self) -> list[str]:
        """A list to which each long step with a text is added, and each turn for others."""
        steps: list[str] = []

        def watch(module: object, attribute: str, step: str) -> None:
            function = getattr(module, attribute)

            def watched(*args: Any) -> Any:
                steps.append(step)
                return function(*args)

            self.patch(module, attribute, watched)

        watch(cooperative.TimeSlice, "next", "turn")
        watch(index_entries, "signature", "signature")
        watch(indexed_events, "text_numbers", "numbers")
        for method in ("rank", "matches", "highlights"):
            watch(SearchTerm, method, method)
        return steps

    async def test_long_texts_and_terms(self) -> None:
        """A user finds the beginning of a text of any length, with a term of any length."""
        long = await self.alice.say(self.room, "needle " + "hay" * 10_000)
        bigrams = await self.alice.say(self.room, "針" + "".join(map(chr, range(0x4E00, 0x7000))))

        self.assertEqual(await self.found(self.bob, "needle"), [long])
        self.assertEqual(await self.found(self.bob, "針一丁"), [bigrams])
        self.assertEqual(await self.found(self.bob, "needle " * 2_000), [long])
        self.assertEqual(await self.found(self.bob, "x" * 2_000), [])

    async def test_large_requests_are_refused(self) -> None:
        """A body has room for a search, and not for more."""
        rooms = ["!" + "x" * 250] * 300
        attempt = self.search(self.alice, "x", filter={"rooms": rooms})
        await self.assert_refused("M_TOO_LARGE", attempt, 413)

    async def test_many_rooms_in_a_filter(self) -> None:
        """A client may name many rooms, known or not."""
        event_id = await self.alice.say(self.room, "needle")
        rooms = [f"!unknown{number}:example.org" for number in range(1_000)]

        self.assertEqual(
            await self.found(self.alice, "needle", filter={"rooms": [*rooms, self.room]}),
            [event_id],
        )
