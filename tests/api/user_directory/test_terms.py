"""What is typed into the search for users, and in which order they are shown."""

from typing import Any

from tests.api.user_directory.directory_server import PATH, UserDirectoryTestCase
from tests.support.actors import Actor


class TermTests(UserDirectoryTestCase):
    """Alice searches; Bob and others are in a room with her."""

    async def setUp(self) -> None:
        await super().setUp()
        self.room = await self.meet(self.alice, self.bob)

    async def add(self, localpart: str, name: str) -> Actor:
        """One more member of the room."""
        actor = await self.register(localpart)
        await self.rename(actor, name)
        await self.alice.invite(self.room, actor)
        await actor.join(self.room)
        return actor

    async def test_words_may_be_unfinished_and_in_any_order(self) -> None:
        """All of them have to be there."""
        await self.rename(self.bob, "Robert Ångström-Smith")

        for term in ("rob", "ANG", "ångström", "smith", "robert a", "smi rob", "angstrom smith"):
            self.assertEqual(await self.found(self.alice, term), ["bob"], term)
        for term in ("obert", "robert x", "smith x", "robertang", "mith"):
            self.assertEqual(await self.found(self.alice, term), [], term)

    async def test_user_id_is_found_by_its_beginning(self) -> None:
        """With and without the sigil, and through the server name."""
        for term in ("@bob", "@BOB:exa", "bob:example.org", " @bob:example.org "):
            self.assertEqual(await self.found(self.alice, term), ["bob"], term)
        for term in ("@ob", "example.org", "@bob:other", "@"):
            self.assertEqual(await self.found(self.alice, term), [], term)

    async def test_user_id_is_not_looked_for_in_names(self) -> None:
        """Nobody is found by the id of another user."""
        await self.add("mallory", self.bob.user_id)

        self.assertEqual(await self.found(self.alice, self.bob.user_id), ["bob"])
        self.assertEqual(await self.found(self.alice, "@bob"), ["bob"])

    async def test_names_without_spaces_are_found_by_any_part(self) -> None:
        """Korean, Chinese and Japanese users type one part of the name."""
        await self.add("kim", "김민수")
        await self.add("wang", "王小明")
        await self.add("yamada", "山田たろう")
        await self.add("somchai", "สมชาย")

        for term, who in (
            ("민수", "kim"),
            ("김", "kim"),
            ("수", "kim"),
            ("小明", "wang"),
            ("明", "wang"),
            ("田たろ", "yamada"),
            ("たろう", "yamada"),
            ("ชาย", "somchai"),
        ):
            self.assertEqual(await self.found(self.alice, term), [who], term)
        self.assertEqual(await self.found(self.alice, "민김"), [])

    async def test_patterns_and_garbage_find_nothing(self) -> None:
        """What means something to a database is text here."""
        for term in ("", " ", "%", "_ob", "%ob", "b_b_b", "\\", "'; --", "*", "\u202e"):
            self.assertEqual(await self.found(self.alice, term), [], repr(term))
        long = "bob" + "b" * 60_000
        self.assertEqual(await self.found(self.alice, long), [])
        self.assertEqual(await self.found(self.alice, "\U0010ffff"), [])

    async def test_malformed_requests_are_refused(self) -> None:
        """With an error of the specification."""
        bodies: list[Any] = [{}, {"search_term": 1}, {"search_term": None}, [], "bob"]
        bodies += [{"search_term": "bo\0b"}]
        bodies += [{"search_term": "bob", "limit": limit} for limit in (0, -1, "x", 1.5)]
        for body in bodies:
            await self.assert_refused("M_BAD_JSON", self.alice.post(PATH, body), 400)
        lone_surrogate = rb'{"search_term": "\ud800bob"}'
        await self.assert_refused("M_NOT_JSON", self.alice.post(PATH, lone_surrogate), 400)
        await self.assert_refused(
            "M_MISSING_TOKEN", self.anybody.post(PATH, {"search_term": "bob"}), 401
        )

    async def test_limit(self) -> None:
        """`limited` says that there are more."""
        for number in range(12):
            await self.add(f"bob{number:02}", f"Bobby {number}")

        answer = await self.search(self.alice, "bob")
        self.assertEqual((len(answer["results"]), answer["limited"]), (10, True))
        self.assertEqual(answer["results"][0]["user_id"], self.bob.user_id)
        answer = await self.search(self.alice, "bob", limit=13)
        self.assertEqual((len(answer["results"]), answer["limited"]), (13, False))
        answer = await self.search(self.alice, "bob", limit=12)
        self.assertEqual((len(answer["results"]), answer["limited"]), (12, True))
        answer = await self.search(self.alice, "bobby 1", limit=1_000_000)
        self.assertEqual((len(answer["results"]), answer["limited"]), (3, False))

    async def test_best_match_is_first(self) -> None:
        """An exact name, then names that begin with the term, then later words."""
        await self.add("one", "Jim Bob")
        await self.add("two", "Bobby")
        await self.add("three", "BOB")
        stranger = await self.register("stranger")
        await self.rename(stranger, "Bob")
        await stranger.create_room(preset="public_chat")

        self.assertEqual(
            await self.found(self.alice, "bob"), ["bob", "three", "stranger", "two", "one"]
        )

    async def test_hidden_nickname_of_a_redacted_event(self) -> None:
        """A name in one room is not used for local users, redacted or not."""
        event_id = await self.name_in(self.room, self.bob, "Nickname")
        self.assertEqual(await self.found(self.alice, "nickname"), [])

        await self.alice.redact(self.room, event_id)

        self.assertEqual(await self.found(self.alice, "bob"), ["bob"])
