"""Delegations: the cache lifetime of responses and of failures."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from federation.transport.well_known import (
    DEFAULT_SECONDS,
    MAX_SECONDS,
    MIN_SECONDS,
    RETRIES,
    WellKnownDelegations,
    lifetime,
)
from homeserver.outbound.http_client import OutboundError, OutboundResponse

HOST = "example.org"
NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


class Web:
    """Answers what the test says; a `Deferred` is waited for."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.answer: Any = None

    def says(self, server_name: str, status: int = 200, **headers: str) -> None:
        """Serve a file that names a server."""
        sent = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        body = b'{"m.server": "%s"}' % server_name.encode()
        self.answer = OutboundResponse(status, sent, body, "")

    async def request(self, method: str, url: str, **options: Any) -> OutboundResponse:
        """The interface of the web client."""
        assert options["only_https"]
        self.requested.append(url)
        answer = self.answer
        if isinstance(answer, Deferred):
            await answer
            answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        found: OutboundResponse = answer
        return found


class Lookups:
    """Delegations with a clock that the test advances."""

    def __init__(self) -> None:
        self.clock, self.web = Clock(), Web()
        self.clock.advance(NOW)
        self.delegations = WellKnownDelegations(self.clock, self.web)  # type: ignore[arg-type]

    def find(self) -> str | None:
        """The delegation of the host, found without waiting."""
        found: list[str | None] = []
        ensureDeferred(self.delegations.find(HOST)).addCallback(found.append)
        return found[0]


@pytest.fixture
def lookups() -> Lookups:
    return Lookups()


def test_a_response_is_cached_for_a_day(lookups: Lookups) -> None:
    """A web site does not get a request for each message."""
    lookups.web.says("one.example")
    assert lookups.find() == "one.example"
    assert lookups.web.requested == ["https://example.org/.well-known/matrix/server"]
    lookups.web.says("two.example")
    lookups.clock.advance(DEFAULT_SECONDS - 1)

    assert lookups.find() == "one.example"
    lookups.clock.advance(1)
    assert lookups.find() == "two.example"


def test_failures_are_cached_for_longer_and_longer(lookups: Lookups) -> None:
    """A host without the file gets few requests, and is found soon after it gets one."""
    lookups.web.answer = OutboundError("no")
    pauses = []
    for _ in range(9):
        assert lookups.find() is None
        requested, waited = len(lookups.web.requested), 0.0
        while len(lookups.web.requested) == requested:
            lookups.clock.advance(10)
            waited += 10
            lookups.find()
        pauses.append(waited)
        lookups.web.requested.pop()
        lookups.clock.advance(pauses[-1] * 2)

    assert pauses[0] == RETRIES.pauses[0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRIES.pauses[-1]


@pytest.mark.parametrize("status", [201, 301, 403, 404])
def test_only_a_response_with_status_200_counts(lookups: Lookups, status: int) -> None:
    """An error page in JSON is an error page."""
    lookups.web.says("one.example", status=status)

    assert lookups.find() is None


@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_a_web_site_that_is_down_does_not_cut_off_its_homeserver(
    lookups: Lookups, status: Any
) -> None:
    """The last response stays in use for a limited time."""
    lookups.web.says("one.example")
    lookups.find()
    lookups.clock.advance(DEFAULT_SECONDS)
    if status is None:
        lookups.web.answer = OutboundError("no")
    else:
        lookups.web.says("", status=status)

    assert lookups.find() == "one.example"
    lookups.clock.advance(MAX_SECONDS - DEFAULT_SECONDS)
    assert lookups.find() is None


def test_a_delegation_that_was_taken_back_ends(lookups: Lookups) -> None:
    """The file was removed on purpose."""
    lookups.web.says("one.example")
    lookups.find()
    lookups.clock.advance(DEFAULT_SECONDS)
    lookups.web.says("one.example", status=404)

    assert lookups.find() is None


def test_concurrent_look_ups_share_a_response(lookups: Lookups) -> None:
    """A burst of messages to a new server sends its web site one request."""
    lookups.web.answer = waiting = Deferred[None]()
    found: list[str | None] = []
    for _ in range(3):
        ensureDeferred(lookups.delegations.find(HOST)).addCallback(found.append)
    lookups.web.says("one.example")
    waiting.callback(None)

    assert found == ["one.example"] * 3
    assert len(lookups.web.requested) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DEFAULT_SECONDS),
        ({"Cache-Control": "max-age=3600"}, 3_600),
        ({"Cache-Control": 'Public, Max-Age = "3600"'}, 3_600),
        ({"Cache-Control": "max-age=3600", "Age": "600"}, 3_000),
        ({"Cache-Control": "max-age=3600", "Age": "yesterday"}, 3_600),
        ({"Cache-Control": "max-age=1"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=-1"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=soon"}, MIN_SECONDS),
        ({"Cache-Control": "no-store"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=3600, no-cache"}, MIN_SECONDS),
        ({"Cache-Control": "max-age=" + "9" * 400}, MAX_SECONDS),
        ({"Cache-Control": "public"}, DEFAULT_SECONDS),
        ({"Expires": "Sun, 06 Nov 1994 09:49:37 GMT"}, 3_600),
        ({"Expires": "Sun, 06 Nov 1994 09:49:37 GMT", "Cache-Control": "max-age=60"}, 60),
        ({"Expires": "Sun, 06 Nov 1994 07:49:37 GMT"}, MIN_SECONDS),
        ({"Expires": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_SECONDS),
        ({"Expires": "0"}, MIN_SECONDS),
    ],
)
def test_headers_set_the_lifetime_within_bounds(headers: dict[str, str], seconds: float) -> None:
    """An operator can prepare a move; an attacker cannot pin a response for months."""
    sent = Headers({name: [value] for name, value in headers.items()})

    assert lifetime(sent, NOW) == seconds
