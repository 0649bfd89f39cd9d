"""Named pools of threads, for functions that block or that take long.

The reactor has a pool of its own, of ten threads that everything would share: name servers that do
not answer would keep log-ins waiting, and a thread that hangs would keep the process from ending.
Nothing here uses it. A `ThreadPool` is for one purpose: how many calls run at once and how many may
wait is bounded, and what is waited for in one pool delays nobody in another.

Each call gets a daemon thread of its own, which costs less than a tenth of a millisecond: a pool
has no idle threads and need not be stopped, and the process ends whatever its threads are doing.
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
    """As many calls wait for a thread as may."""


class ThreadPool:
    """Runs at most `size` calls at a time; at most `max_waiting` more wait for their turn.

    `running` and `waiting` say how many there are of each.
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
        """How many calls wait for a thread."""
        return len(self._waiting)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """What a function returns or raises, called in a thread. Raises `PoolFull`.

        Who cancels the Deferred waits no longer. A call that has begun goes on, and keeps its
        place in the pool until it ends.
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
        except RuntimeError:  # the system gives no more threads
            self.running -= 1
            done.errback()

    def _work(self, done: Deferred[Any], call: Callable[[], Any]) -> None:
        """In the thread."""
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
            return  # whoever waited for it was cancelled
        if isinstance(result, Failure):
            done.errback(result)
        else:
            done.callback(result)


def run_in_own_thread(
    reactor: Any, name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Deferred[T]:
    """What a function returns or raises that is called once, such as when the server starts."""
    return ThreadPool(reactor, name, size=1, max_waiting=0).run(function, *args, **kwargs)


def computation_pool(reactor: Any = None) -> ThreadPool:
    """A pool for pure computations that take long; by default with the reactor of the process.

    Two at a time: more would only take the interpreter from each other and from the reactor.
    """
    if reactor is None:
        # At the top of the file this would choose the reactor of the process.
        from twisted.internet import reactor
    return ThreadPool(reactor, "computation", size=2, max_waiting=10_000)
