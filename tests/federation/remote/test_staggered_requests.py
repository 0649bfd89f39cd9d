"""Staggered requests to several servers of which some are slow or fail."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from federation.remote.staggered_requests import HEAD_START_SECONDS, StaggeredRequests

SERVERS = ["one.example", "two.example", "three.example"]


class StaggeredRequestsTests(SynchronousTestCase):
    """Three servers whose answers the test gives."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests: dict[str, Deferred[str]] = {}
        self.asking: StaggeredRequests[str] = StaggeredRequests(self.clock, SERVERS, self.ask)

    def ask(self, server: str) -> Deferred[str]:
        """Record the request."""
        self.requests[server] = Deferred()
        return self.requests[server]

    def next(self) -> Deferred[Any]:
        """The next answer, some time."""
        return Deferred.fromCoroutine(self.asking.__anext__())

    def test_no_second_server_is_asked_while_the_first_is_fast(self) -> None:
        """A join costs other servers nothing if the first server does it."""
        coming = self.next()
        self.clock.advance(HEAD_START_SECONDS / 2)
        self.requests["one.example"].callback("yes")

        assert self.successResultOf(coming) == ("one.example", "yes")
        self.asking.close()
        assert [*self.requests] == ["one.example"]
        assert self.clock.getDelayedCalls() == []

    def test_a_slow_server_does_not_delay_the_result(self) -> None:
        """One that accepts connections but never responds costs its head start, not a minute."""
        coming = self.next()
        self.clock.advance(HEAD_START_SECONDS)
        self.requests["two.example"].callback("yes")

        assert self.successResultOf(coming) == ("two.example", "yes")
        later = self.next()
        self.requests["one.example"].callback("late")
        assert self.successResultOf(later) == ("one.example", "late")
        self.asking.close()

    def test_the_next_is_asked_at_once_after_a_failure(self) -> None:
        """There is nothing to wait for, and the error is not lost."""
        coming = self.next()
        self.requests["one.example"].errback(ValueError("no"))
        server, error = self.successResultOf(coming)

        assert (server, str(error)) == ("one.example", "no")
        assert [*self.requests] == ["one.example", "two.example"]
        self.asking.close()

    def test_the_next_is_asked_at_once_while_another_is_silent(self) -> None:
        """A refusal starts the next request, however long the first one takes."""
        self.next()
        self.clock.advance(HEAD_START_SECONDS)
        self.requests["two.example"].errback(ValueError("no"))

        assert [*self.requests] == SERVERS
        self.asking.close()

    def test_no_other_is_asked_while_a_response_is_tried(self) -> None:
        """A join of a large room takes a while, and other servers need no request."""
        coming = self.next()
        self.requests["one.example"].callback("yes")
        self.successResultOf(coming)
        self.clock.advance(10 * HEAD_START_SECONDS)
        assert [*self.requests] == ["one.example"]

        self.next()
        assert [*self.requests] == ["one.example", "two.example"]
        self.asking.close()

    def test_it_ends_when_all_have_failed(self) -> None:
        """The user gets an error, and does not wait endlessly."""
        for server in SERVERS:
            coming = self.next()
            self.requests[server].errback(ValueError("no"))
            self.successResultOf(coming)

        self.failureResultOf(self.next(), StopAsyncIteration)  # type: ignore[no-untyped-call]

    def test_running_requests_are_cancelled(self) -> None:
        """Nothing continues in the background after a good response."""
        self.next()
        self.clock.advance(HEAD_START_SECONDS)
        self.asking.close()

        for server in ("one.example", "two.example"):
            assert self.requests[server].called
        assert self.clock.getDelayedCalls() == []
