"""Named pools of threads, for functions that block or that take long.

The reactor's own pool has ten threads for all purposes: name servers that do not respond would
delay log-ins, and a thread that hangs would keep the process from ending. It is not used. A
`ThreadPool` is for one purpose: the number of running and of waiting calls is bounded, and calls in
one pool never delay those in another.

Each call gets a daemon thread of its own, which costs less than a tenth of a millisecond: a pool
has no idle threads and need not be stopped, and the process ends even while threads are running.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


class PoolFull(Exception):
    """Too many calls are waiting for a thread."""


class ThreadPool:
    """A pool that runs at most `size` calls at a time; at most `max_waiting` more wait.

    `running` and `waiting` are the numbers of such calls.
    """

    def __init__(self, reactor: Any, name: str, *, size: int, max_waiting: int) -> None:
        self.name = name
        self.running = 0
        self._reactor = reactor
        self._size = size
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return len(self._waiting)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call a function in a thread and return its result. Raises `PoolFull`.

        Cancelling the Deferred ends the wait. A call that has begun continues, and keeps its place
        in the pool until it ends.
        """
        done: Deferred[T] = Deferred(self._forget)
        call = partial(function, *args, **kwargs)
        if self.running < self._size:
            self._start(done, call)
        elif len(self._waiting) < self._max_waiting:
            self._waiting.append((done, call))
        else:
            raise PoolFull(f"{len(self._waiting)} calls wait for the threads of {self.name!r}")
        return done

    def _forget(self, done: Deferred[Any]) -> None:
        for place, (waiting, _) in enumerate(self._waiting):
            if waiting is done:
                del self._waiting[place]
                return

    def _start(self, done: Deferred[Any], call: Callable[[], Any]) -> None:
        self.running += 1
        try:
            Thread(target=self._work, args=(done, call), name=self.name, daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self.running -= 1
            done.errback()

    def _work(self, done: Deferred[Any], call: Callable[[], Any]) -> None:
        """Run a call in its thread."""
        try:
            result = call()
        except BaseException:
            result = Failure()
        self._reactor.callFromThread(self._ended, done, result)

    def _ended(self, done: Deferred[Any], result: Any) -> None:
        self.running -= 1
        # More than one, if there was no thread for some.
        while self._waiting and self.running < self._size:
            self._start(*self._waiting.popleft())
        if done.called:
            return  # the waiting caller was cancelled
        if isinstance(result, Failure):
            done.errback(result)
        else:
            done.callback(result)


def run_in_own_thread(
    reactor: Any, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Deferred[T]:
    """Call a function in a thread of its own, for rare calls such as at the server's start."""
    return ThreadPool(reactor, name, size=1, max_waiting=0).run(function, *args, **kwargs)


def computation_pool(reactor: Any = None) -> ThreadPool:
    """A pool for long pure computations; by default with the reactor of the process.

    Two at a time: more would only compete for the interpreter with each other and the reactor.
    """
    if reactor is None:
        # An import at the top of the file would choose the reactor of the process.
        from twisted.internet import reactor
    return ThreadPool(reactor, "computation", size=2, max_waiting=10_000)
