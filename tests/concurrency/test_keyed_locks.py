"""Locks by key."""

from twisted.internet.defer import Deferred

from homeserver.concurrency.keyed_locks import KeyedLocks


def test_one_key_is_held_once_and_another_meanwhile() -> None:
    """Who wants the same key waits; nobody else does, and nothing is kept when all are done."""
    locks: KeyedLocks[str] = KeyedLocks()
    seen: list[str] = []
    gates: dict[str, Deferred[None]] = {name: Deferred() for name in "abc"}

    async def work(key: str, name: str) -> None:
        async with locks.hold(key):
            seen.append(name)
            await gates[name]

    working = [
        Deferred.fromCoroutine(work(key, name))
        for key, name in (("x", "a"), ("x", "b"), ("y", "c"))
    ]
    assert seen == ["a", "c"]

    gates["a"].callback(None)
    assert seen == ["a", "c", "b"]
    gates["b"].callback(None)
    gates["c"].callback(None)

    assert all(each.called for each in working)
    assert len(locks) == 0


def test_a_failure_frees_the_key() -> None:
    """The next one is let in, whatever became of the one before."""
    locks: KeyedLocks[str] = KeyedLocks()

    async def fail() -> None:
        async with locks.hold("x"):
            raise ValueError("fault")

    errors: list[object] = []
    for _ in range(2):
        failure = Deferred.fromCoroutine(fail())
        failure.addErrback(lambda error: errors.append(error.type))
    assert errors == [ValueError, ValueError]
    assert len(locks) == 0
