"""Calls that several want at the same time."""

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from homeserver.concurrency.single_flight import SingleFlight


class SingleFlightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.flights: SingleFlight[str, int] = SingleFlight()
        self.calls: list[Deferred[int]] = []
        self.wanted: list[Sequence[str]] = []  # keys of the calls for many

    async def call(self) -> int:
        self.calls.append(Deferred())
        return await self.calls[-1]

    def join(self, key: str) -> Deferred[int]:
        return Deferred.fromCoroutine(self.flights.join(key, self.call))

    def test_one_call_serves_all_who_want_it(self) -> None:
        """The database is asked once, however many requests come for the same."""
        waiting = [self.join("a"), self.join("a")]

        self.calls[0].callback(7)

        self.assertEqual([self.successResultOf(each) for each in waiting], [7, 7])
        self.assertEqual(len(self.calls), 1)

    def test_each_key_has_a_call_of_its_own(self) -> None:
        """Nobody waits for what somebody else wants."""
        self.join("a")
        other = self.join("b")

        self.calls[1].callback(7)

        self.assertEqual(self.successResultOf(other), 7)
        self.assertTrue(self.flights.is_running("a"))
        self.assertFalse(self.flights.is_running("b"))

    def test_a_failure_reaches_all_and_is_not_kept(self) -> None:
        """What failed once may succeed for the next one."""
        waiting = [self.join("a"), self.join("a")]

        self.calls[0].errback(ValueError("no"))
        later = self.join("a")
        self.calls[1].callback(7)

        for each in waiting:
            self.failureResultOf(each, ValueError)
        self.assertEqual(self.successResultOf(later), 7)

    def test_who_gives_up_stops_nobody_else(self) -> None:
        """Not even the one who came first and made the call."""
        first, second = self.join("a"), self.join("a")

        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.calls[0].callback(7)

        self.assertEqual(self.successResultOf(second), 7)

    def test_a_call_that_was_forgotten_serves_only_those_who_wait(self) -> None:
        """A caller after a deletion does not get a value that was read before it."""
        before = self.join("a")
        self.flights.forget("a")
        after, beside = self.join("a"), self.join("a")

        self.calls[0].callback(1)
        is_running = self.flights.is_running("a")
        self.calls[1].callback(2)

        self.assertEqual(self.successResultOf(before), 1)
        self.assertTrue(is_running)
        self.assertEqual([self.successResultOf(each) for each in (after, beside)], [2, 2])

    def join_many(self, *keys: str) -> Deferred[None]:
        async def call(wanted: Sequence[str]) -> dict[str, int]:
            self.wanted.append(wanted)
            self.calls.append(Deferred())
            return dict.fromkeys(wanted, await self.calls[-1])

        return Deferred.fromCoroutine(self.flights.join_many(keys, call))

    def test_one_call_is_made_for_many_keys(self) -> None:
        """And who wants one of them joins it."""
        together = self.join_many("a", "b")
        alone = self.join("b")

        self.calls[0].callback(7)

        self.successResultOf(together)
        self.assertEqual(self.successResultOf(alone), 7)
        self.assertEqual(self.wanted, [["a", "b"]])
        self.assertFalse(self.flights.is_running("a"))

    def test_a_call_for_many_keys_leaves_out_those_under_way(self) -> None:
        """They are waited for as well."""
        self.join("a")
        together = self.join_many("a", "b")

        self.calls[1].callback(7)
        self.assertNoResult(together)
        self.calls[0].callback(1)

        self.successResultOf(together)
        self.assertEqual(self.wanted, [["b"]])

    def test_a_failed_call_for_many_keys_fails_for_those_who_joined(self) -> None:
        """Who made it finds out where a key is needed, by a call that may succeed."""
        together = self.join_many("a", "b")
        alone = self.join("b")

        self.calls[0].errback(ValueError("no"))
        later = self.join("b")
        self.calls[1].callback(7)

        self.successResultOf(together)
        self.failureResultOf(alone, ValueError)
        self.assertEqual(self.successResultOf(later), 7)

    def test_no_call_is_made_for_no_keys(self) -> None:
        """Nobody waits where nothing is missing."""
        self.successResultOf(self.join_many())

        self.assertEqual(self.calls, [])
