"""A client for requests to URLs; `federation/transport/client.py` builds on its parts.

Clients can make the server send requests: to the gateway of a pusher, to a page for a preview. So
addresses that are not public are refused, or any user could send requests to services that only
this machine can reach. The address is checked when the connection is made, after the name was
resolved, and again for each redirect: no second resolution can return another one.

All is bounded: the time of the whole exchange, the size of the response, and the number of
redirects. Cookies are never stored. So `treq` sends the requests, but neither follows redirects nor
reads bodies: its readers do not close the connection when the time is over.
"""

from collections.abc import Callable, Coroutine, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

import msgspec
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.graceful_close import ConnectionTracker
from homeserver.outbound.networks import Network, open_network
from homeserver.protocol.errors import MatrixError
from homeserver.version import VERSION

TIMEOUT_SECONDS = 30.0  # of one exchange, redirects and body included
CONNECT_SECONDS = 10.0
MAX_BODY = 1_048_576  # bytes
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
IDLE_SECONDS = 30
MAX_IDLE_PER_HOST = 2  # connections
USER_AGENT = f"homeserver/{VERSION}"
T = TypeVar("T")
URL_CHARACTERS = "%/:=&?~+!$,;'@()*[]"


class OutboundError(Exception):
    """There is no response. The message, for logs only, has the reason and maybe addresses."""


class OutboundTimeout(OutboundError):
    """There was no connection, or no response, in time."""


class ResponseTooLarge(OutboundError):
    """The response, of this status, has more bytes than allowed."""

    def __init__(self, status: int) -> None:
        super().__init__("the response is too large")
        self.status = status


class OutboundTooBusy(OutboundError):
    """The response may be valid, but this server has no memory for it now."""


class OutboundResponse(msgspec.Struct, frozen=True):
    """The response from `url`, which differs from the requested URL after redirects."""

    status: int
    headers: Headers
    body: bytes
    url: str


class OutboundClient:
    """An HTTP client. `await stop()` when it is no longer needed.

    `tls` verifies certificates; without it, the settings decide, with the system's authorities.
    `network` makes connections; without it, a new one that allows what the settings allow.
    """

    def __init__(
        self,
        reactor: Any,
        settings: OutboundHttpSettings,
        tls: ClientTls | None = None,
        network: Network | None = None,
    ) -> None:
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.cachedConnectionTimeout = IDLE_SECONDS
        self._pool.maxPersistentPerHost = MAX_IDLE_PER_HOST
        network = network or open_network(
            reactor, "the web", allow_private_addresses=settings.allow_private_addresses
        )
        tls = tls or ClientTls(verify=settings.verify_certificates)
        self._open = ConnectionTracker(reactor)
        factory = WebEndpoints(network, tls, self._open)
        agent = Agent.usingEndpointFactory(reactor, factory, self._pool)
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(netscape=False, rfc2965=False))
        self._http = HTTPClient(_UncompressedAgent(agent), no_cookies)

    async def stop(self) -> None:
        """Close all connections."""
        await self._pool.closeCachedConnections()
        await self._open.end()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_body: int = MAX_BODY,
        timeout: float = TIMEOUT_SECONDS,
        only_https: bool = False,
        follow_redirects: bool = True,
    ) -> OutboundResponse:
        """Send a request and read its response: at most `max_body` bytes, within `timeout` seconds.

        Redirects are followed for GET alone, since a body is meant for one server only, and with
        `only_https` only to servers that prove their name by a certificate; without
        `follow_redirects` the response is that of the first server. Raises `OutboundError`.
        """
        names = {"User-Agent": USER_AGENT, **(headers or {})}
        sent = Headers({name: [value] for name, value in names.items()})

        async def receive(response: IResponse, final_url: str) -> OutboundResponse:
            content = await read_body(response, max_body)
            return OutboundResponse(response.code, response.headers, content, final_url)

        return await self._run(
            self._exchange(
                method, url, sent, body, receive, only_https=only_https, follows=follow_redirects
            ),
            timeout,
        )

    async def stream(
        self,
        url: str,
        receive: Callable[[IResponse], Coroutine[Deferred[Any], Any, T]],
        *,
        timeout: float,
        only_https: bool,
        headers: Mapping[str, str] | None = None,
        check: Callable[[str], None] = lambda _: None,
    ) -> T:
        """Send a GET request, follow redirects, and have `receive` read the body of the response.

        `check` is called with the URL and with that of each redirect before it is requested; it may
        raise `OutboundError`. Raises `OutboundError`. A `MatrixError` of `receive` is passed on.
        """
        names = {"User-Agent": USER_AGENT, **(headers or {})}
        sent = Headers({name: [value] for name, value in names.items()})
        return await self._run(
            self._exchange(
                "GET",
                url,
                sent,
                None,
                lambda r, _: receive(r),
                only_https=only_https,
                follows=True,
                check=check,
            ),
            timeout,
        )

    async def _run(self, exchange: Coroutine[Deferred[Any], Any, T], timeout: float) -> T:
        running = Deferred.fromCoroutine(exchange)
        try:
            return await running.addTimeout(timeout, self._reactor, _timed_out)
        except (OutboundError, MatrixError, CancelledError):
            raise
        except ConnectTimeout as error:
            raise OutboundTimeout("there was no connection in time") from error
        except Exception as error:
            raise OutboundError(f"{type(error).__name__}: {reason_of(error)}") from error

    async def post_form(self, url: str, form: Mapping[str, str]) -> OutboundResponse:
        """Send a request like an HTML form. Raises `OutboundError`."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.request("POST", url, headers=headers, body=urlencode(form).encode())

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | None,
        receive: Callable[[IResponse, str], Coroutine[Deferred[Any], Any, T]],
        *,
        only_https: bool,
        follows: bool,
        check: Callable[[str], None] = lambda _: None,
    ) -> T:
        for _ in range(MAX_REDIRECTS + 1):
            url = normal_url(url)
            if only_https and not url.startswith("https:"):
                raise OutboundError(f"{url} is not https")
            check(url)
            response = await self._http.request(
                method,
                _NormalUrl.from_text(url),
                headers=headers,
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            target = response.headers.getRawHeaders("Location")
            is_followed = follows and method == "GET"
            if response.code not in REDIRECTS or not is_followed or not target:
                return await receive(response, url)
            await read_body(response, MAX_BODY)
            url = urljoin(url, target[0])
            # It was meant for the requested server, not for the target of a redirect.
            headers.removeHeader("Authorization")
        raise OutboundError(f"there are more than {MAX_REDIRECTS} redirects")


def normal_url(url: str) -> str:
    """A URL in ASCII, without its fragment. Raises `OutboundError` unless it is http or https."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise OutboundError("the URL is not that of a public web page")
        netloc = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except ValueError as error:
        raise OutboundError(f"the URL is not valid: {error}") from error
    if port is not None:
        netloc = f"{netloc}:{port}"
    path, query = quote(parts.path, safe=URL_CHARACTERS), quote(parts.query, safe=URL_CHARACTERS)
    return urlunsplit((parts.scheme, netloc, path or "/", query, ""))


class _NormalUrl(EncodedURL):
    """A URL that `normal_url` has made.

    `treq` would encode its host again, and does not accept an IPv6 address there.
    """

    def to_uri(self) -> Self:
        return self


@implementer(IAgent)
class _UncompressedAgent:
    """An agent that keeps `treq` from decompressing bodies.

    A chunk of a body is decompressed before its size is counted, and 64 KiB can become 64 MiB.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        if headers is not None:
            headers.removeHeader("Accept-Encoding")
        sending: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return sending.addCallback(_uncompressed)


def _uncompressed(response: IResponse) -> IResponse:
    response.headers.removeHeader("Content-Encoding")
    return response


@implementer(IAgentEndpointFactory)
class WebEndpoints:
    """Endpoints of URLs; their connections are recorded in `open_connections`."""

    def __init__(
        self, network: Network, tls: ClientTls, open_connections: ConnectionTracker
    ) -> None:
        self._network = network
        self._tls = tls
        self._open = open_connections

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._network, uri.host.decode("ascii"), uri.port, timeout=CONNECT_SECONDS
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return _TrackedEndpoint(endpoint, self._open)


@implementer(IStreamClientEndpoint)
class _TrackedEndpoint:
    """An endpoint whose connections end in bounded time."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, open_connections: ConnectionTracker
    ) -> None:
        self._endpoint = endpoint
        self._open = open_connections

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(self._open.wrap(protocolFactory))
        return connecting.addCallback(lambda connection: connection.wrappedProtocol)


class _Body(Protocol):
    """A protocol that collects a body up to its bound."""

    def __init__(self, status: int, max_body: int, may_keep: Callable[[int], bool]) -> None:
        self._status = status
        self.done: Deferred[bytes] = Deferred(lambda _: self._close())
        self._left = max_body
        self._may_keep = may_keep
        self._chunks: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._left -= len(data)
        if self._left < 0:
            self._refuse(ResponseTooLarge(self._status))
        elif not self._may_keep(len(data)):
            self._refuse(OutboundTooBusy("too many responses are being read"))
        else:
            self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(reason)

    def _refuse(self, error: OutboundError) -> None:
        self._chunks.clear()
        self.done.errback(error)
        self._close()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def read_body(
    response: IResponse, max_body: int, may_keep: Callable[[int], bool] = lambda _: True
) -> Deferred[bytes]:
    """The body of a response. Fails with `ResponseTooLarge` if it has more than `max_body` bytes.

    `may_keep` is called with the size of each piece of the body; returning false ends the reading.
    """
    body = _Body(response.code, max_body, may_keep)
    response.deliverBody(body)
    return body.done


def _timed_out(_: object, timeout: float) -> Failure:
    """The failure of an exchange that was cancelled for its timeout."""
    return Failure(OutboundTimeout(f"there was no response within {timeout} seconds"))


def reason_of(error: Exception) -> str:
    """The reason of a failed request; Twisted keeps some reasons in a list."""
    reasons = getattr(error, "reasons", None) or [error]
    return "; ".join(
        reason.getErrorMessage() if isinstance(reason, Failure) else str(reason)
        for reason in reasons
    )
