"""A federating server that a test scripts: with its own rooms, and any response, true or not.

It listens on loopback TLS, in the test's own process, and signs with its own key. By default it
responds as a well-behaved server from the rooms in `rooms`; `answers` replaces that, one operation
(named as in the specification, in snake case) at a time.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.policies import WrappingFactory
from twisted.web.client import HTTPConnectionPool
from twisted.web.server import Site

from homeserver.protocol.events import Event, build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.x_matrix import authorize
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.fake_http import Answer, Handler, Received
from tests.support.fake_server.fake_resource import FakeResource
from tests.support.fake_server.fake_responses import DefaultResponses, Holdings
from tests.support.room_graph import RoomGraph, now_ms

PATIENCE_SECONDS = 20.0


class FakeServer(Holdings):
    """A server with scripted behaviour. `received` holds all requests in their order.

    `join_responses` are the responses to its joins, by room.
    """

    def __init__(self, authority: CertificateAuthority) -> None:
        super().__init__()
        self.authority = authority
        self.answers: dict[str, Handler] = {}
        self.received: list[Received] = []
        self.join_responses: dict[str, Any] = {}
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._http = authority.http_client(self._pool)
        self._port: IListeningPort | None = None
        self._keys_of: dict[str, dict[str, str]] = defaultdict(dict)
        self._waiting: list[tuple[Callable[[Received], bool], Deferred[Received]]] = []
        self._fetching: list[Deferred[Any]] = []
        self._transactions = count(1)
        self._good = DefaultResponses(self)
        self._factory = _Connections(Site(FakeResource(self)))

    async def start(self) -> None:
        """Listen on a free port, which is part of the server's name."""
        files = self.authority.issue(file_name="fake")
        pem = files.certificate.read_bytes() + files.private_key.read_bytes()
        options = PrivateCertificate.loadPEM(pem).options()
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        self._port = await endpoint.listen(self._factory)
        self.name = f"127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        """Break all connections, and listen no more."""
        assert self._port is not None
        await self._port.stopListening()
        await self._factory.break_all()
        # A server that requested keys may have ended by now.
        await DeferredList(self._fetching, consumeErrors=True)
        await self._pool.closeCachedConnections()

    def user(self, name: str) -> str:
        """The id of a user of this server; users need no registration here."""
        return f"@{name}:{self.name}"

    def create_room(
        self, version: str = "12", creator: str = "mallory", **choices: Any
    ) -> RoomGraph:
        """A room that this server holds; `choices` are those of `RoomGraph.create`."""
        graph = RoomGraph.create(version, self.user(creator), self.name, self.key, **choices)
        self.rooms[graph.room_id] = graph
        return graph

    async def ask(
        self,
        destination: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        origin: str | None = None,
        key: SigningKey | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> tuple[int, Any]:
        """Send a signed request to another server; returns the status and the decoded response.

        Bytes are sent unchanged, and so is `msgspec.Raw` in a body. `origin` and `key` are for
        requests that pretend to be another server's.
        """
        uri = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body, order="deterministic")
        header = str(
            authorize(method, uri, origin or self.name, destination, body, key or self.key)
        )
        response = await self._http.request(
            method,
            f"https://{destination}{uri}",
            headers={"Authorization": header, "Content-Type": "application/json"},
            data=body,
        )
        content = await response.content()
        try:
            return response.code, msgspec.json.decode(content)
        except msgspec.DecodeError:
            return response.code, content

    async def send(
        self,
        destination: str,
        pdus: Sequence[Event | Mapping[str, Any] | msgspec.Raw] = (),
        edus: Sequence[Mapping[str, Any] | msgspec.Raw] = (),
        *,
        txn_id: str | None = None,
    ) -> tuple[int, Any]:
        """Send a transaction; gives the status and the response."""
        txn_id = txn_id or f"{time.time_ns()}-{next(self._transactions)}"
        body = {
            "origin": self.name,
            "origin_server_ts": now_ms(),
            "pdus": [pdu.pdu if isinstance(pdu, Event) else pdu for pdu in pdus],
            "edus": list(edus),
        }
        path = f"/_matrix/federation/v1/send/{quote(txn_id, safe='')}"
        return await self.ask(destination, "PUT", path, body)

    async def join(
        self, destination: str, room_id: str, user_id: str, *, omit_members: bool = False
    ) -> RoomGraph:
        """Join a room through another server; gives all that it then knows of the room."""
        path = f"/_matrix/federation/v1/make_join/{quote(room_id)}/{quote(user_id)}"
        status, response = await self.ask(
            destination, "GET", path, query={"ver": list(ROOM_VERSIONS)}
        )
        assert status == 200, response
        template, version = response["event"], ROOM_VERSIONS[response["room_version"]]
        join = build_event(
            version,
            room_id=room_id,
            type=template["type"],
            sender=user_id,
            content=template["content"],
            state_key=user_id,
            prev_events=template["prev_events"],
            auth_events=template["auth_events"],
            depth=template["depth"],
            origin_server_ts=now_ms(),
            server_name=self.name,
            key=self.key,
        )
        path = f"/_matrix/federation/v2/send_join/{quote(room_id)}/{quote(join.event_id, safe='')}"
        query = {"omit_members": ["true"]} if omit_members else None
        status, response = await self.ask(destination, "PUT", path, join.pdu, query=query)
        assert status == 200, response
        self.join_responses[room_id] = response
        graph = RoomGraph(version, room_id, self.name, self.key)
        self.rooms[room_id] = RoomGraph.joined(
            graph, response["state"], response["auth_chain"], join
        )
        return graph

    async def invite(self, destination: str, graph: RoomGraph, sender: str, user_id: str) -> Event:
        """Invite a user of another server, which adds its signature; the event is in the graph."""
        content = {"membership": "invite"}
        event = graph.build("m.room.member", content, sender=sender, state_key=user_id)
        names = ("m.room.create", "m.room.join_rules")
        stripped = [graph.state_event(name).pdu for name in names]
        body = {
            "event": event.pdu,
            "room_version": graph.version.identifier,
            "invite_room_state": stripped,
        }
        path = f"/_matrix/federation/v2/invite/{quote(graph.room_id)}/"
        status, response = await self.ask(
            destination, "PUT", path + quote(event.event_id, safe=""), body
        )
        assert status == 200, response
        return graph.put(Event.from_pdu(graph.version, response["event"]))

    async def wait_for_request(
        self, operation: str, where: Callable[[Received], bool] = lambda _: True
    ) -> Received:
        """Wait for a request, unless there was one; returns the first."""

        def fits(request: Received) -> bool:
            return request.operation == operation and where(request)

        for request in self.received:
            if fits(request):
                return request
        waiting: Deferred[Received] = Deferred()
        waiting.addTimeout(PATIENCE_SECONDS, reactor)
        self._waiting.append((fits, waiting))
        return await waiting

    async def hears(self, event_id: str) -> Event:
        """Wait until a transaction brings an event of one of the rooms."""

        def is_known(_: Received) -> bool:
            return any(event_id in graph.events for graph in self.rooms.values())

        await self.wait_for_request("send_transaction", is_known)
        return next(
            graph.events[event_id] for graph in self.rooms.values() if event_id in graph.events
        )

    async def keys_of(self, server_name: str) -> Mapping[str, str]:
        """The public keys of another server by key id, fetched once."""
        if server_name not in self._keys_of:
            fetching = Deferred.fromCoroutine(self._fetch_keys(server_name))
            self._fetching.append(fetching)
            response = await fetching
            self._keys_of[server_name] = {
                key_id: entry["key"] for key_id, entry in response["verify_keys"].items()
            }
        return self._keys_of[server_name]

    async def _fetch_keys(self, server_name: str) -> Any:
        response = await self._http.get(f"https://{server_name}/_matrix/key/v2/server")
        return msgspec.json.decode(await response.content())

    def respond(self, request: Received) -> Answer:
        """The response to a request, which is recorded."""
        handler = self.answers.get(request.operation) or getattr(self._good, request.operation)
        response = handler(request)
        self.received.append(request)
        for fits, waiting in [*self._waiting]:
            if not waiting.called and fits(request):
                waiting.callback(request)
        self._waiting = [entry for entry in self._waiting if not entry[1].called]
        return response


class _Connections(WrappingFactory):
    """All connections of a server, so that none is left open when it ends."""

    noisy = False
    _all_gone: Deferred[None] | None = None

    async def break_all(self) -> None:
        """Break those that are open, and wait until they are gone."""
        if self.protocols:
            self._all_gone = Deferred()
            for connection in [*self.protocols]:
                connection.transport.abortConnection()
            await self._all_gone

    def unregisterProtocol(self, p: Any) -> None:
        super().unregisterProtocol(p)
        if self._all_gone is not None and not self.protocols:
            all_gone, self._all_gone = self._all_gone, None
            all_gone.callback(None)
