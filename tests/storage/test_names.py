"""Names and their numbers: stable, unique, and cached both ways."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names, is_storable
from tests.support.postgres import DatabaseTestCase

AWKWARD = ["", " ", "a" * 255, "@ü:example.org", "💬" * 63, "\\", "'", "{", "\x01", "A", "a"]
AWKWARD += ["\0", "a\0b", "\x1a", "\x1a0", "\x1a1", "\x1a\0", "\0\x1a", "\x1a10"]


class NamesTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.names = Names(self.db, capacity=100)

    async def test_name_keeps_its_number(self) -> None:
        """Rows written years ago still mean the same user."""
        nid = await self.names.nid("@alice:example.org")

        later = Names(self.db, capacity=100)

        self.assertEqual(await later.nid("@alice:example.org"), nid)
        self.assertEqual(await later.name(nid), "@alice:example.org")

    async def test_awkward_names_are_all_different_and_come_back_unchanged(self) -> None:
        """A state key may be any text, and case, spaces and signs matter."""
        nids = await self.names.nids(AWKWARD)

        fresh = Names(self.db, capacity=100)

        self.assertEqual(len(set(nids.values())), len(AWKWARD))
        self.assertEqual(
            await fresh.names(nids.values()), {nid: name for name, nid in nids.items()}
        )

    async def test_name_that_cannot_be_stored_is_refused(self) -> None:
        """A lone surrogate is not valid text; the connection must survive it."""
        with self.assertRaises(ValueError):
            await self.names.nid("\ud800")

        self.assertEqual(await self.names.find_nids(["\ud800"]), {})

    async def test_looking_up_never_creates(self) -> None:
        """Requests with unknown names do not fill the table."""
        await self.names.nid("known")

        found = await self.names.find_nids(["known", "unknown"])

        self.assertEqual(list(found), ["known"])
        self.assertIsNone(await self.names.find_nid("unknown"))

    async def test_unknown_number_has_no_name(self) -> None:
        """An unknown number is an error, or left out of a list."""
        with self.assertRaises(KeyError):
            await self.names.name(4711)

        self.assertEqual(await self.names.names([4711]), {})

    async def test_concurrent_creators_agree(self) -> None:
        """Two processes that see the same new users give them the same numbers."""
        other_db = Database(reactor, self.dsn)
        await other_db.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(other_db.close()))
        wanted = [f"@user{number}:example.org" for number in range(50)]

        results = await gatherResults(
            [
                Deferred.fromCoroutine(Names(db, 100).nids(order))
                for order in (wanted, wanted[::-1])
                for db in (self.db, other_db)
                for _ in range(4)
            ]
        )

        self.assertTrue(all(result == results[0] for result in results))
        self.assertEqual(len(set(results[0].values())), 50)

    async def test_known_names_cost_no_round_trip(self) -> None:
        """A message in an active room needs no query."""
        nid = await self.names.nid("m.room.message")
        runs = self.db.runs

        again = [await self.names.nid("m.room.message"), self.names.cached_nid("m.room.message")]
        name = await self.names.name(nid)

        self.assertEqual(again, [nid, nid])
        self.assertEqual(name, "m.room.message")
        self.assertEqual(self.db.runs, runs)

    async def test_cache_keeps_what_was_used_last(self) -> None:
        """Memory is bounded, and the names of active rooms stay in it."""
        small = Names(self.db, capacity=2)
        first = await small.nid("first")
        second = await small.nid("second")
        await small.name(first)

        await small.nid("third")

        self.assertEqual(small.cached_nid("first"), first)
        self.assertIsNone(small.cached_nid("second"))
        self.assertIsNone(small.cached_name(second))

    async def test_more_names_than_the_cache_holds_are_all_answered(self) -> None:
        """A room of many members does not need a cache of that size."""
        small = Names(self.db, capacity=2)

        nids = await small.nids([str(number) for number in range(10)])

        self.assertEqual(len(nids), 10)
        self.assertEqual(len(await small.names(nids.values())), 10)


@given(st.text())
def test_any_text_without_lone_surrogates_is_storable(text: str) -> None:
    """JSON from other servers may contain any character; only lone surrogates are refused."""
    storable = not any("\ud800" <= letter <= "\udfff" for letter in text)

    assert is_storable(text) == storable
