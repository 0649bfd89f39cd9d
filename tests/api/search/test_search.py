"""What a search finds, and what it returns."""

from tests.api.search.search_test_case import SearchTestCase, ids


class FindingTests(SearchTestCase):
    async def test_a_message_is_found_by_its_words(self) -> None:
        """A user finds a message by words of it, in any case, at once after it was sent."""
        event_id = await self.alice.say(self.room, "The Martians have landed, again")
        await self.alice.say(self.room, "Men have landed")

        page = await self.search(self.bob, "landed martians")

        self.assertEqual(ids(page), [event_id])
        self.assertEqual(page["count"], 1)
        self.assertEqual(sorted(page["highlights"]), ["Martians", "landed"])
        self.assertNotIn("next_batch", page)
        self.assertEqual(page["results"][0]["result"]["content"]["body"][:3], "The")
        self.assertGreater(page["results"][0]["rank"], 0)
