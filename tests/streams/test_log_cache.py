"""Entries that are loaded once and then follow the log."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.concurrency.lru_cache import LruCache
from homeserver.streams.log_cache import LogCache


class LogCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loads: list[Deferred[list[str]]] = []
        self.cache: LogCache[str, list[str], str] = LogCache(
            LruCache("words", 4, size_of=lambda _, words: len(words)), self.load, list.append
        )

    async def load(self, _: str) -> list[str]:
        self.loads.append(Deferred())
        return await self.loads[-1]

    def get(self, key: str) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self.cache.get(key))

    def keep(self, key: str, *words: str) -> None:
        self.get(key)
        self.loads[-1].callback([*words])

    def test_an_entry_is_loaded_once(self) -> None:
        """Also for those who want it while it is being loaded."""
        waiting = [self.get("a"), self.get("a")]

        self.loads[0].callback(["one"])
        later = self.get("a")

        for each in (*waiting, later):
            self.assertEqual(self.successResultOf(each), ["one"])
        self.assertEqual(len(self.loads), 1)

    def test_what_happens_during_a_load_is_not_lost(self) -> None:
        """The database may have answered before it was written."""
        waiting = self.get("a")

        self.cache.publish("a", "two")
        self.cache.publish("b", "of another")
        self.loads[0].callback(["one"])
        self.cache.publish("a", "three")

        self.assertEqual(self.successResultOf(waiting), ["one", "two", "three"])
        self.assertIsNone(self.cache.find("b"))

    def test_missing_entries_are_loaded_together(self) -> None:
        """And follow the log from the beginning of the load, as single ones do."""
        wanted: list[Sequence[str]] = []
        self.keep("a", "one")

        async def load_all(keys: Sequence[str]) -> dict[str, list[str]]:
            wanted.append(keys)
            rows = await self.load("")
            return {key: list(rows) for key in keys}

        together = Deferred.fromCoroutine(self.cache.get_ready(["a", "b", "c"], load_all))
        alone = self.get("c")
        self.cache.publish("b", "two")
        self.loads[-1].callback(["one"])

        self.successResultOf(together)
        self.assertEqual(wanted, [["b", "c"]])
        self.assertEqual(self.cache.find("b"), ["one", "two"])
        self.assertEqual(self.successResultOf(alone), ["one"])

    def test_an_entry_that_grows_is_measured(self) -> None:
        """Those that were used longer ago make room for it."""
        self.keep("a", "one")
        self.keep("b", "one")

        for word in ("two", "three", "four"):
            self.cache.publish("b", word)

        self.assertIsNone(self.cache.find("a"))
        self.assertEqual(self.cache.find("b"), ["one", "two", "three", "four"])

    def test_what_was_loaded_before_it_was_forgotten_is_not_kept(self) -> None:
        """An account that was erased while its data was being read stays erased."""
        before = self.get("a")
        self.cache.forget("a")
        after = self.get("a")

        self.loads[0].callback(["old"])
        in_memory = self.cache.find("a")
        self.cache.publish("a", "new")
        self.loads[1].callback([])

        self.assertEqual(self.successResultOf(before), ["old"])
        self.assertIsNone(in_memory)
        self.assertEqual(self.successResultOf(after), ["new"])

    def test_a_load_that_failed_is_made_again(self) -> None:
        """Nothing of it is left behind."""
        failed = self.get("a")
        self.loads[0].errback(ValueError("away"))
        self.failureResultOf(failed, ValueError)

        self.cache.publish("a", "while nobody cares")
        again = self.get("a")
        self.loads[1].callback(["one"])

        self.assertEqual(self.successResultOf(again), ["one"])
