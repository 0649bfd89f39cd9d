"""Pools of threads: bounded, separate, and no obstacle to the end of the process."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from queue import Queue
from threading import Event
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from homeserver.concurrency import thread_pools
from homeserver.concurrency.thread_pools import PoolFull, ThreadPool
from tests.support.reactor import pause, run


def test_results_and_errors_come_back() -> None:
    """A caller gets results and errors as if there were no thread."""

    async def story() -> None:
        pool = ThreadPool(reactor, "test", size=2, max_waiting=2)
        assert await pool.run(divmod, 7, 2) == (3, 1)
        try:
            await pool.run(divmod, 7, 0)
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("no error came back")
        assert pool.running == 0

    run(story())


def test_a_pool_is_bounded_and_another_one_continues() -> None:
    """The caller that fills a pool gets an error, and other pools are not delayed."""

    async def story() -> None:
        gate = Event()
        full = ThreadPool(reactor, "full", size=2, max_waiting=2)
        stuck = [full.run(gate.wait) for _ in range(4)]
        assert (full.running, full.waiting) == (2, 2)
        try:
            full.run(gate.wait)
        except PoolFull:
            pass
        else:
            raise AssertionError("there was room for one more")

        other = ThreadPool(reactor, "other", size=1, max_waiting=0)
        assert await other.run(max, 1, 2) == 2
        gate.set()
        for each in stuck:
            await each
        assert (full.running, full.waiting) == (0, 0)

    run(story())


def test_cancelled_wait_frees_the_place_in_the_queue() -> None:
    """A cancelled request is not worked on."""

    async def story() -> None:
        gate, begun = Event(), []
        pool = ThreadPool(reactor, "test", size=1, max_waiting=2)
        first = pool.run(gate.wait)
        given_up: Deferred[None] = pool.run(begun.append, "given up")
        last = pool.run(begun.append, "last")
        given_up.addErrback(lambda failure: failure.trap(CancelledError))
        given_up.cancel()
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        assert pool.running == 1  # its thread is still there

        gate.set()
        await last
        await pause(0)
        assert begun == ["last"]
        assert pool.running == 0

    run(story())


def test_result_of_a_cancelled_call_is_ignored() -> None:
    """Its thread cannot be stopped, and ends later."""
    ended: Queue[Callable[[], None]] = Queue()

    class FromThreads:
        def callFromThread(self, function: Callable[..., None], *args: Any) -> None:
            ended.put(partial(function, *args))

    for call in (lambda: "result", lambda: 1 // 0):
        pool = ThreadPool(FromThreads(), "test", size=1, max_waiting=0)
        given_up: Deferred[Any] = pool.run(call)
        given_up.addErrback(lambda failure: failure.trap(CancelledError))
        given_up.cancel()

        ended.get(timeout=10)()

        assert pool.running == 0


def test_without_threads_of_the_system_calls_fail() -> None:
    """Waiting and later callers get an error if the system has no more threads."""

    async def story() -> None:
        gate = Event()
        pool = ThreadPool(reactor, "test", size=1, max_waiting=3)
        running = pool.run(gate.wait)
        waiting = [pool.run(max, 1, 2) for _ in range(3)]
        with patch.object(thread_pools, "Thread", side_effect=RuntimeError("no more threads")):
            gate.set()
            await running
            for each in waiting:
                with pytest.raises(RuntimeError):
                    await each
        assert (pool.running, pool.waiting) == (0, 0)

    run(story())


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """A server stops when it should, whatever a name server does."""
    program = (
        "import time\n"
        "from twisted.internet import reactor\n"
        "from homeserver.concurrency.thread_pools import ThreadPool\n"
        "pool = ThreadPool(reactor, 'test', size=4, max_waiting=4)\n"
        "for _ in range(8): pool.run(time.sleep, 60)\n"
        "reactor.callLater(0.1, reactor.stop)\n"
        "reactor.run()\n"
    )
    started = time.monotonic()

    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

    assert time.monotonic() - started < 20
