"""Locks by key: serialised work for the same key, and no waiting for others."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from homeserver.concurrency.keyed_locks import KeyedLocks


class KeyedLocksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.locks: KeyedLocks[str] = KeyedLocks()
        self.done: list[str] = []

    def work(self, key: str, name: str) -> tuple[Deferred[None], Deferred[None]]:
        """Work that holds a lock until its second Deferred fires."""
        held: Deferred[None] = Deferred()

        async def hold() -> None:
            async with self.locks.hold(key):
                self.done.append(name)
                await held

        return Deferred.fromCoroutine(hold()), held

    def test_the_same_key_is_held_by_one_after_the_other(self) -> None:
        """In the order of arrival; no lock remains in the end."""
        working = [self.work("a", f"{number}") for number in range(3)]
        self.work("b", "other")[1].callback(None)
        self.assertEqual(self.done, ["0", "other"])

        for _, held in working:
            held.callback(None)

        self.assertEqual(self.done, ["0", "other", "1", "2"])
        self.assertEqual(len(self.locks), 0)

    def test_cancelled_or_failed_holder_releases_the_lock(self) -> None:
        """Whether it waits for the lock or holds it."""
        first, held = self.work("a", "first")
        second, _ = self.work("a", "second")
        third, ends = self.work("a", "third")

        second.cancel()
        self.failureResultOf(second)
        held.errback(ValueError("failed"))
        self.failureResultOf(first, ValueError)
        ends.callback(None)

        self.successResultOf(third)
        self.assertEqual((self.done, len(self.locks)), (["first", "third"], 0))

    def test_destroyed_holder_resumes_nobody(self) -> None:
        """The garbage collector destroys it in the midst of other code, and who waits with it."""

        async def hold() -> None:
            async with self.locks.hold("a"):
                await Deferred()

        holder = hold()
        holder.send(None)
        self.work("a", "waits")

        holder.close()

        self.assertEqual(self.done, [])
        self.work("a", "newcomer")
        self.assertEqual(self.done, ["newcomer"])

    def test_others_wait_a_bounded_time(self) -> None:
        """Until the holder is done, or too slow; they leave no lock behind."""
        clock = Clock()
        first, held = self.work("a", "first")
        patient = Deferred.fromCoroutine(self.locks.wait_until_free("a", 10.0, clock))
        hasty = Deferred.fromCoroutine(self.locks.wait_until_free("a", 1.0, clock))
        self.successResultOf(Deferred.fromCoroutine(self.locks.wait_until_free("b", 1.0, clock)))

        clock.advance(1.0)
        self.assertNoResult(patient)
        self.successResultOf(hasty)
        held.callback(None)

        self.successResultOf(first)
        self.successResultOf(patient)
        self.assertEqual(len(self.locks), 0)
        self.assertEqual(clock.getDelayedCalls(), [])
