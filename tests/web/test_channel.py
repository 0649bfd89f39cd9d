"""Connections: what is a request, where it ends, and how long it may take, byte for byte.

Twisted's own channel defines what a request is. This server's refuses a little more.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import NamedTuple, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web import http

from homeserver.web.addresses import TrustedProxies
from homeserver.web.connection.channel import ABORT_SECONDS, BAD_REQUEST, MAX_AHEAD, Channel
from homeserver.web.connection.request_heads import MAX_FIELDS, MAX_HEAD, RequestHead

T = TypeVar("T")
GET = b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n"
IDLE, REQUEST = 20.0, 10.0


class Seen(NamedTuple):
    """One request that a channel has read."""

    method: bytes
    target: bytes
    fields: dict[bytes, list[bytes]]
    body: bytes


class Received:
    """A request that is answered as soon as it is complete, or when the test says so."""

    is_refused = False
    has_begun = False

    def __init__(self, end: "Client", head: RequestHead) -> None:
        self.end = end
        self.head = head
        self.body = b""
        self.length: int | None = -1
        self.is_lost = False

    def head_received(self, length: int | None) -> None:
        self.length = length

    def body_part(self, data: bytes) -> None:
        self.body += data

    def body_ended(self) -> None:
        head = self.head
        fields = {name: list(values) for name, values in head.fields.items()}
        self.end.seen.append(Seen(head.method, head.target, fields, self.body))
        if self.end.answers_at_once:
            self.end.channel.request_done()

    def connection_lost(self) -> None:
        self.is_lost = True


class Client:
    """This server's channel, on a transport in memory."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.requests: list[Received] = []
        self.answers_at_once = True
        self.clock = Clock()
        self.open: set[Channel] = set()
        self.channel = Channel(
            self.clock,
            TrustedProxies(()),
            self.open,
            self._make_request,
            idle_timeout=IDLE,
            request_timeout=REQUEST,
        )
        self.transport = Transport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1234))
        self.channel.makeConnection(self.transport)

    def _make_request(self, _: Channel, head: RequestHead) -> Received:
        self.requests.append(Received(self, head))
        return self.requests[-1]

    def feed(self, parts: Iterable[bytes]) -> "Client":
        for part in parts:
            if part and not self.is_closed:
                self.channel.dataReceived(part)
        return self

    @property
    def is_closed(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)

    @property
    def is_bad(self) -> bool:
        return self.transport.value().startswith(BAD_REQUEST)


class Transport(StringTransport):
    """A transport whose buffers are never full, unless the test says so."""

    dataBuffer, offset, _tempDataLen = b"", 0, 0


class TwistedClient:
    """Twisted's channel, which has read requests for many years."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        seen = self.seen

        class Recorder(http.Request):
            def gotLength(self, length: int | None) -> None:
                self.content = BytesIO()

            def process(self) -> None:
                fields = {
                    name.lower(): list(values)
                    for name, values in self.requestHeaders.getAllRawHeaders()
                }
                seen.append(Seen(self.method, self.uri, fields, self.content.read()))
                self.finish()

        self.channel = http.HTTPChannel()
        self.channel.requestFactory = Recorder
        self.channel.callLater = Clock().callLater
        self.channel.timeOut = None
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 1234))
        self.channel.makeConnection(self.transport)

    def feed(self, parts: Iterable[bytes]) -> "TwistedClient":
        for part in parts:
            if part and not self.transport.disconnecting:
                self.channel.dataReceived(part)
        return self


def split(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The bytes in parts, cut at these places."""
    before = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[before:cut]
        before = cut
    yield data[before:]


def seldom(usual: st.SearchStrategy[T], *odd: T) -> st.SearchStrategy[T]:
    """The usual, and now and then something odd."""
    return st.integers(0, 39).flatmap(lambda n: usual if n else st.sampled_from(odd))


EOL = seldom(st.just(b"\r\n"), b"\n", b"\r", b"\r\r\n", b"\r\n\r\n", b"\0\r\n", b" \r\n")
METHODS = seldom(st.sampled_from([b"GET", b"PUT", b"X-Y"]), b"", b"G T", b"G\xe9T", b"get")
TARGETS = seldom(
    st.sampled_from([b"/", b"/a?b=c", b"*", b"http://test/x"]), b"", b"/a b", b"/\x7f", b"/\xff"
)
VERSIONS = seldom(st.just(b"HTTP/1.1"), b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b"")
NAMES = seldom(
    st.sampled_from([b"Host", b"x-y", b"COOKIE", b"Content-Type"]), b"", b"a b", b"Host ", b"\xe9"
)
VALUES = seldom(
    st.sampled_from([b"test", b" a  b ", b"\t", b""]), b"a\rb", b"a\nb", b"\0", b"\xff", b"a:b"
)
FIELDS = st.tuples(NAMES, seldom(st.just(b":"), b"", b" :", b"::"), VALUES).map(b"".join)
LENGTHS = seldom(
    st.just(b"3"), b"0", b"+3", b"-3", b"0x3", b"3, 3", b"", b"03", b"3 ", b"\xb3", b"3_0", b"4"
)
CODINGS = seldom(
    st.just(b"chunked"), b"Chunked", b"gzip", b"gzip, chunked", b"chunked, chunked", b""
)
CHUNKS = seldom(
    st.sampled_from(
        [
            b"3\r\nabc\r\n0\r\n\r\n",
            b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n",
            b"0\r\n\r\n",
        ]
    ),
    b"3\nabc\n0\n\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"-1\r\n",
    b"3\r\nabcd\r\n",
    b"3;\n\r\nabc\r\n0\r\n\r\n",
    b"abc",
)
FRAMED = st.one_of(  # fields and body
    st.tuples(st.just(()), seldom(st.just(b""), b"abc")),
    st.tuples(
        LENGTHS.map(lambda n: (b"Content-Length: " + n,)), seldom(st.just(b"abc"), b"", b"abcd")
    ),
    st.tuples(CODINGS.map(lambda c: (b"Transfer-Encoding: " + c,)), CHUNKS),
    seldom(
        st.just(((), b"")),
        ((b"transfer-encoding:chunked", b"Content-Length: 3"), b"3\r\nabc\r\n0\r\n\r\n"),
        ((b"Content-Length: 3", b"transfer-encoding:chunked"), b"abc"),
        ((b"Content-Length: 3", b"content-length: 3"), b"abc"),
        ((b"Content-Length: 3", b"Content-Length: 4"), b"abc"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), b"0\r\n\r\n"),
        ((b"Content-Length : 3",), b"abc"),
    ),
)
MESSAGES = st.builds(
    lambda line, eol, fields, framed, lead: (
        lead + eol.join([b" ".join(line), *fields, *framed[0], b"", b""]) + framed[1]
    ),
    st.tuples(METHODS, TARGETS, VERSIONS),
    EOL,
    st.lists(FIELDS, max_size=3),
    FRAMED,
    seldom(st.just(b""), b"\r\n", b"\r\n\r\n", b"\n", b" "),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=6))
@example([GET + b"\r\n" + GET], [])
@example([b"GET / HTTP/1.1\r\n\r\n", b"GET /b HTTP/1.1\r\n\r\n"], [])
def test_requests_are_those_that_twisted_reads(messages: list[bytes], cuts: list[int]) -> None:
    """A request that another program reads differently could be smuggled past it."""
    data = b"".join(messages)

    client = Client().feed(split(data, cuts))
    expected = TwistedClient().feed(split(data, cuts))

    assert client.seen == expected.seen[: len(client.seen)]
    if len(client.seen) < len(expected.seen):
        assert client.is_bad or client.is_closed
        assert re.search(rb"\r\n[ \t]", data), "only this server refuses continued fields"


@settings(max_examples=200, deadline=None)
@given(st.lists(MESSAGES, max_size=3), st.lists(st.integers(0, 2000), max_size=8))
def test_it_does_not_matter_how_bytes_are_split(messages: list[bytes], cuts: list[int]) -> None:
    """A network cuts what a client sends anywhere."""
    data = b"".join(messages)

    whole, parts = Client().feed([data]), Client().feed(split(data, cuts))

    assert whole.seen == parts.seen
    assert (whole.is_bad, whole.is_closed) == (parts.is_bad, parts.is_closed)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_garbage_is_refused_or_waits_for_its_end(parts: list[bytes]) -> None:
    """Whatever arrives, the connection ends in order, and nothing is raised."""
    client = Client().feed([b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", *parts])

    client.channel.connectionLost(Failure(ConnectionDone()))

    assert client.clock.getDelayedCalls() == []
    assert client.open == set()


def refused(data: bytes) -> bool:
    client = Client().feed([data])
    return client.is_bad and client.is_closed and not client.seen


def test_bodies_whose_end_is_not_clear_are_refused() -> None:
    """What one server takes for a body could be the next request to another one."""
    for fields in (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Content-Length: 3\r\nContent-Length: 3",
        b"Content-Length: 3\r\nContent-Length: 4",
        b"Content-Length: 3, 3",
        b"Content-Length: +3",
        b"Content-Length:",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding : chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
    ):
        assert refused(b"PUT / HTTP/1.1\r\n" + fields + b"\r\n\r\nabc"), fields


def test_large_heads_are_refused_as_soon_as_they_are_too_large() -> None:
    """They would fill the memory."""
    endless = Client().feed([b"GET / HTTP/1.1\r\n"] + [b"x: " + b"y" * 94 + b"\r\n"] * 1000)
    assert (endless.is_bad, endless.is_closed) == (True, True)

    fits = b"GET / HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD - 20)
    for head, is_refused in (
        (fits, False),
        (fits + b"yy", True),
        (b"GET /%s HTTP/1.1" % (b"x" * MAX_HEAD), True),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * MAX_FIELDS, False),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * (MAX_FIELDS + 1), True),
    ):
        assert refused(head + b"\r\n\r\n") == is_refused, head[:40]


def test_fields_of_one_request_are_not_those_of_the_next() -> None:
    """The fields are parsed again when they have changed, and only then."""
    client = Client()
    for token in (b"a", b"a", b"b"):
        client.feed([b"GET / HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n" % token])
    client.feed([b"GET / HTTP/1.1\r\n\r\n"])

    found = [request.fields.get(b"authorization") for request in client.seen]
    assert found == [[b"Bearer a"], [b"Bearer a"], [b"Bearer b"], None]
    assert client.requests[0].head.fields is client.requests[1].head.fields


def test_refused_fields_are_refused_again() -> None:
    """What is kept of one request is never what was refused."""
    client = Client().feed([GET, b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])

    assert (len(client.seen), client.is_bad) == (1, True)


def test_later_requests_wait_for_the_response_to_the_first() -> None:
    """A client may send them all at once, and gets the responses in order."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET + GET, GET])
    assert len(client.seen) == 1

    for count in (2, 3):
        client.channel.request_done()
        assert len(client.seen) == count


def test_a_client_that_is_far_ahead_is_paused() -> None:
    """Requests that wait for a handler must not fill the memory."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET, b"x" * MAX_AHEAD])
    assert client.transport.producerState == "producing"

    client.feed([b"x"])

    assert client.transport.producerState == "paused"


def test_no_request_is_read_while_the_client_does_not_read() -> None:
    """A client that sends requests and reads no response would fill the memory."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET])
    client.channel.pauseProducing()
    client.feed([GET])
    client.channel.request_done()
    assert (len(client.seen), client.transport.producerState) == (1, "paused")

    client.channel.resumeProducing()

    assert (len(client.seen), client.transport.producerState) == (2, "producing")


def test_continue_is_sent_only_to_clients_that_wait_for_it() -> None:
    """They send the body then; others would take it for the response."""
    head = b"PUT / HTTP/1.%d\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"

    assert Client().feed([head % 1]).transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    for silent in (head % 0, GET, b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"):
        assert Client().feed([silent]).transport.value() == b""


def test_connection_ends_when_the_client_wants_it_to() -> None:
    """HTTP/1.0 and `Connection: close`, also in a list."""
    for field in (b"close", b"Close", b"keep-alive, close", b"close, x"):
        assert Client().feed([b"GET / HTTP/1.1\r\nConnection: %s\r\n\r\n" % field]).is_closed
    assert Client().feed([b"GET / HTTP/1.0\r\n\r\n"]).is_closed
    assert not Client().feed([b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"]).is_closed


def wait(client: Client, seconds: float) -> None:
    """Let time pass, a second at a time."""
    for _ in range(int(seconds)):
        client.clock.advance(1.0)


def test_idle_connection_is_closed_after_its_time() -> None:
    """Connections that nobody uses would accumulate."""
    client = Client().feed([GET])
    wait(client, IDLE - 1)
    client.feed([GET])
    wait(client, IDLE - 1)
    assert not client.is_closed

    wait(client, 1)

    assert client.is_closed


def test_slow_head_and_slow_body_are_closed_after_the_time_of_a_request() -> None:
    """A byte now and then must not hold a connection (slow loris)."""
    for start in (b"GET / HTTP/1.1\r\nX: ", b"PUT / HTTP/1.1\r\nContent-Length: 999\r\n\r\n"):
        client = Client().feed([start])
        for _ in range(int(REQUEST) - 1):
            client.clock.advance(1.0)
            client.feed([b"x"])
        assert not client.is_closed

        client.clock.advance(1.0)

        assert client.is_closed
        assert client.seen == []


def test_large_body_has_as_much_time_again_for_each_part() -> None:
    """An upload over a slow line succeeds."""
    client = Client().feed([b"PUT / HTTP/1.1\r\nContent-Length: 655360\r\n\r\n"])
    for _ in range(10):
        wait(client, REQUEST - 1)
        client.feed([b"x" * 65_536])

    assert [len(request.body) for request in client.seen] == [655_360]
    assert not client.is_closed


def test_handler_has_no_deadline() -> None:
    """A long poll waits for minutes."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET])

    wait(client, 10 * IDLE)

    assert not client.is_closed


def test_connection_that_does_not_end_is_aborted() -> None:
    """A client that has stopped reading never acknowledges the end."""
    for data in (GET, b"GET / HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"):
        client = Client().feed([data])
        wait(client, IDLE + ABORT_SECONDS - 1)
        assert not client.transport.disconnected

        wait(client, 1)

        assert client.transport.disconnected


def test_malformed_body_ends_its_request() -> None:
    """The handler of a stream must not wait for the rest, nor write a second response."""
    head = b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = Client().feed([head + b"1\r\na\r\nnonsense\r\n"])

    [request] = client.requests
    assert (client.is_bad, request.is_lost, client.seen) == (True, True, [])
    begun = Client().feed([head])
    begun.requests[0].has_begun = True
    begun.feed([b"nonsense\r\n"])
    assert (begun.transport.value(), begun.is_closed) == (b"", True)


def test_bytes_after_a_handshake_belong_to_the_next_protocol() -> None:
    """A client may send its first frame at once."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET + b"frame", b"more"])

    transport, unread = client.channel.hand_over()

    assert (transport, unread) == (client.transport, b"framemore")
    assert (client.open, client.clock.getDelayedCalls()) == (set(), [])


def test_end_of_the_connection_ends_the_request() -> None:
    """Nobody waits for the response any more."""
    client = Client()
    client.answers_at_once = False
    client.feed([GET])

    client.channel.connectionLost(Failure(ConnectionDone()))

    assert client.requests[0].is_lost
    assert client.clock.getDelayedCalls() == []
