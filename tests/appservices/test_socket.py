"""The WebSocket `fi.mau.as_sync`: for bridges behind NAT, from the same position as HTTP."""

from typing import Any

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from homeserver.accounts.sessions.requester import Requester
from tests.appservices.bridge import Bridge
from tests.appservices.support import AS_TOKEN, HS_TOKEN, AppserviceTestCase, registration
from tests.support.reactor import until

PATH = "/_matrix/client/unstable/fi.mau.as_sync"


class BridgeSocket(WebSocketClientProtocol):
    """A bridge's end of the WebSocket, which acknowledges transactions if it `acknowledges`."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Any] = []
        self.acknowledges = True
        self.closed: Deferred[tuple[int | None, str | None]] = Deferred()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        frame = msgspec.json.decode(payload)
        self.frames.append(frame)
        if frame["command"] == "transaction" and self.acknowledges:
            data = {"txn_id": frame["txn_id"]}
            self.say({"id": frame["id"], "command": "response", "data": data})

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.closed.callback((code, reason))

    def say(self, frame: Any) -> None:
        self.sendMessage(frame if isinstance(frame, bytes) else msgspec.json.encode(frame))

    def messages(self) -> list[str]:
        """The bodies of the messages in all transactions."""
        return [
            event["content"]["body"]
            for frame in self.frames
            for event in frame.get("events", ())
            if "state_key" not in event
        ]


class SocketTestCase(AppserviceTestCase):
    async def open(self, token: str = f"{AS_TOKEN} irc") -> BridgeSocket:
        """Open the WebSocket, as a bridge does."""
        headers = {"Authorization": f"Bearer {token}", "X-Mautrix-Websocket-Version": "3"}
        port = self.server.ports[0]
        factory = WebSocketClientFactory(
            f"ws://127.0.0.1:{port}{PATH}", headers=headers, reactor=reactor
        )
        factory.protocol = BridgeSocket
        socket: BridgeSocket = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
        self.addCleanup(socket.dropConnection, abort=True)
        await socket.is_open
        await until(lambda: socket.frames != [])
        return socket


class SocketTests(SocketTestCase):
    async def test_a_bridge_without_a_url(self) -> None:
        """It has no port that the server could reach."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        socket = await self.open()

        event_id = await alice.say(room, "hello")
        await until(lambda: "hello" in socket.messages())

        connect, transaction = socket.frames
        self.assertEqual((connect["command"], connect["status"]), ("connect", "ok"))
        self.assertEqual((transaction["command"], transaction["status"]), ("transaction", "ok"))
        self.assertEqual([each["event_id"] for each in transaction["events"]], [event_id])

    async def test_what_was_missed_comes_with_the_next_connection(self) -> None:
        """A laptop was closed for a while."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        first = await self.open()
        first.acknowledges = False
        await alice.say(room, "one")
        await until(lambda: first.messages() == ["one"])
        first.dropConnection(abort=True)
        await first.closed
        await alice.say(room, "two")
        await self.restart_server(alice)

        second = await self.open()

        await until(lambda: "two" in second.messages())
        self.assertEqual(second.messages(), ["one", "two"])
        self.assertEqual(first.frames[-1]["txn_id"], second.frames[1]["txn_id"])

    async def test_an_error_is_no_acknowledgement(self) -> None:
        """The transaction comes again, unchanged."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        socket = await self.open()
        socket.acknowledges = False
        await alice.say(room, "one")
        await until(lambda: len(socket.frames) == 2)
        socket.say({"id": 99, "command": "response"})
        socket.acknowledges = True

        socket.say({"id": socket.frames[1]["id"], "command": "error", "data": {"code": "M_X"}})

        await until(lambda: len(socket.frames) == 3)
        self.assertEqual(socket.frames[1]["txn_id"], socket.frames[2]["txn_id"])
        self.assertEqual(socket.frames[1]["events"][0], socket.frames[2]["events"][0])

    async def test_a_newer_connection_replaces_an_older_one(self) -> None:
        """A bridge that lost its network opens another connection."""
        first = await self.open()

        await self.open()

        code, reason = await first.closed
        self.assertEqual(code, 4001)
        self.assertEqual(msgspec.json.decode(reason or "")["status"], "conn_replaced")

    async def test_a_connection_that_never_opens_is_in_nobodys_way(self) -> None:
        """A bridge lost its network in the middle of the handshake."""
        caller = Requester("@_irc_bot:example.org", None, appservice="irc")
        await self.server.parts.appservices.as_sync.as_sync(caller)

        socket = await self.open()

        self.assertEqual(socket.frames[0]["command"], "connect")

    async def test_what_happens_while_the_first_connection_opens(self) -> None:
        """The first one takes a fifth of a second: a bridge is invited meanwhile."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        as_sync = self.server.parts.appservices.as_sync
        is_asked: Deferred[None] = Deferred()
        imported: Deferred[Any] = Deferred()

        class SlowImport:
            async def get(self) -> Any:
                is_asked.callback(None)
                return await imported

        factory, as_sync._factory = as_sync._factory, SlowImport()  # type: ignore[assignment]
        caller = Requester("@_irc_bot:example.org", None, appservice="irc")
        opening = Deferred.fromCoroutine(as_sync.as_sync(caller))
        await is_asked
        await alice.say(room, "hello")
        as_sync._factory = factory
        imported.callback(await factory.get())
        await opening

        socket = await self.open()

        await until(lambda: socket.messages() == ["hello"])

    async def test_commands(self) -> None:
        """A ping is answered, and what is unknown gets an error."""
        socket = await self.open()

        socket.say({"id": 1, "command": "ping", "data": {"timestamp": 1}})
        socket.say({"id": 2, "command": "bridge_status", "data": {}})
        await until(lambda: len(socket.frames) == 3)

        self.assertEqual([each["command"] for each in socket.frames[1:]], ["response", "error"])
        self.assertEqual([each["id"] for each in socket.frames[1:]], [1, 2])
        for garbage in (b"no json",):
            socket.say(garbage)
        self.assertEqual((await socket.closed)[0], 1007)

    async def test_the_server_stops(self) -> None:
        """The bridge knows that it should connect again."""
        socket = await self.open()

        await self.server.stop()

        self.assertEqual((await socket.closed)[0], 1012)

    async def test_people_are_refused(self) -> None:
        """The transactions of a bridge are not for others."""
        alice = await self.register("alice")

        await self.assert_refused("M_UNRECOGNIZED", self.bot().request("GET", PATH), 426)
        headers = {
            "Authorization": f"Bearer {alice.token}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        response = await self._http.request("GET", self.url + PATH, headers=headers)
        self.assertEqual(response.code, 403)
        await response.content()


class SwitchTests(SocketTestCase):
    async def setUp(self) -> None:
        self.bridge = Bridge(f"{HS_TOKEN} irc")
        self.bridge.listen()
        self.registrations = (registration("irc", url=self.bridge.url),)
        self.addCleanup(self.bridge.stop)
        await super().setUp()

    async def test_switching_loses_and_doubles_nothing(self) -> None:
        """A bridge that uses both gets each message on one of them."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        await alice.say(room, "http 1")
        await self.bridge.until(lambda: "http 1" in self.bridge.messages())
        socket = await self.open()
        await alice.say(room, "socket 1")
        await until(lambda: "socket 1" in socket.messages())
        socket.acknowledges = False
        await alice.say(room, "unacknowledged")
        await until(lambda: "unacknowledged" in socket.messages())
        socket.dropConnection(abort=True)
        await alice.say(room, "http 2")
        await self.bridge.until(lambda: "http 2" in self.bridge.messages())

        self.assertEqual(self.bridge.messages(), ["http 1", "unacknowledged", "http 2"])
        self.assertEqual(socket.messages(), ["socket 1", "unacknowledged"])
