"""Delegations: how long an answer is believed, and what a failure leads to."""

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
        self.asked: list[str] = []
        self.answer: Any = None

    def says(self, server_name: str, status: int = 200, **headers: str) -> None:
        """Let the file name a server."""
        sent = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        body = b'{"m.server": "%s"}' % server_name.encode()
        self.answer = OutboundResponse(status, sent, body, "")

    async def request(self, method: str, url: str, **options: Any) -> OutboundResponse:
        """What a client for the web would do."""
        assert options["only_https"]
        self.asked.append(url)
        answer = self.answer
        if isinstance(answer, Deferred):
            await answer
            answer = self.answer
        if isinstance(answer, Exception):
            raise answer
        found: OutboundResponse = answer
        return found


class World:
    """Delegations with a clock that the test advances."""

    def __init__(self) -> None:
        self.clock, self.web = Clock(), Web()
        self.clock.advance(NOW)
        self.delegations = WellKnownDelegations(self.clock, self.web)  # type: ignore[arg-type]

    def find(self) -> str | None:
        """What the host delegates to, which is known at once."""
        found: list[str | None] = []
        ensureDeferred(self.delegations.find(HOST)).addCallback(found.append)
        return found[0]


@pytest.fixture
def world() -> World:
    return World()


def test_an_answer_is_remembered_for_a_day(world: World) -> None:
    """A web site is not asked for each message."""
    world.web.says("one.example")
    assert world.find() == "one.example"
    assert world.web.asked == ["https://example.org/.well-known/matrix/server"]
    world.web.says("two.example")
    world.clock.advance(DEFAULT_SECONDS - 1)

    assert world.find() == "one.example"
    world.clock.advance(1)
    assert world.find() == "two.example"


def test_failures_are_remembered_for_longer_and_longer(world: World) -> None:
    """A host without the file is not asked all the time, and found soon if it gets one."""
    world.web.answer = OutboundError("no")
    pauses = []
    for _ in range(9):
        assert world.find() is None
        asked, waited = len(world.web.asked), 0.0
        while len(world.web.asked) == asked:
            world.clock.advance(10)
            waited += 10
            world.find()
        pauses.append(waited)
        world.web.asked.pop()
        world.clock.advance(pauses[-1] * 2)

    assert pauses[0] == RETRIES.pauses[0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRIES.pauses[-1]


@pytest.mark.parametrize("status", [201, 301, 403, 404])
def test_only_an_answer_with_status_200_counts(world: World, status: int) -> None:
    """An error page in JSON is an error page."""
    world.web.says("one.example", status=status)

    assert world.find() is None


@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_a_web_site_that_is_down_does_not_cut_off_its_homeserver(world: World, status: Any) -> None:
    """The last answer stays in use, though not for ever."""
    world.web.says("one.example")
    world.find()
    world.clock.advance(DEFAULT_SECONDS)
    if status is None:
        world.web.answer = OutboundError("no")
    else:
        world.web.says("", status=status)

    assert world.find() == "one.example"
    world.clock.advance(MAX_SECONDS - DEFAULT_SECONDS)
    assert world.find() is None


def test_a_delegation_that_was_taken_back_ends(world: World) -> None:
    """The file was removed on purpose."""
    world.web.says("one.example")
    world.find()
    world.clock.advance(DEFAULT_SECONDS)
    world.web.says("one.example", status=404)

    assert world.find() is None


def test_all_who_ask_at_once_share_an_answer(world: World) -> None:
    """A burst of messages to a new server asks its web site once."""
    world.web.answer = waiting = Deferred[None]()
    found: list[str | None] = []
    for _ in range(3):
        ensureDeferred(world.delegations.find(HOST)).addCallback(found.append)
    world.web.says("one.example")
    waiting.callback(None)

    assert found == ["one.example"] * 3
    assert len(world.web.asked) == 1


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
def test_headers_say_how_long_within_bounds(headers: dict[str, str], seconds: float) -> None:
    """Whoever moves a server can prepare for it; nobody can pin us to an answer for months."""
    sent = Headers({name: [value] for name, value in headers.items()})

    assert lifetime(sent, NOW) == seconds
