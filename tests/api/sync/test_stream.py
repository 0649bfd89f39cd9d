"""The WebSocket transport as a client meets it: opening, updates, calls, limits and the end."""

from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET
from typing import Any, ClassVar, cast

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.client_api.sync.stream_session import MAX_CALLS
from homeserver.config.sections.limits import RateSettings, WebSocketSettings
from homeserver.protocol.errors import Unavailable
from tests.api.sync.stream_test_case import Client, StreamTestCase, pause


class OpeningTests(StreamTestCase):
    async def test_first_update_comes_at_once(self) -> None:
        """A client that connects is up to date without asking."""
        self.engine.append("one", "two")

        client = await self.open()

        self.assertEqual(client.protocol, "m.json")
        self.assertEqual(await client.next_entries(), ["one", "two"])

    async def test_token_in_the_subprotocol_opens_and_is_not_echoed(self) -> None:
        """Browsers cannot set headers; what is echoed may end in logs."""
        client = await self.open(by_subprotocol=True)

        self.assertEqual(client.protocol, "m.json")
        self.assertEqual(await client.next_entries(), [])

    async def test_since_resumes(self) -> None:
        """Events that a client has are not sent again."""
        self.engine.append("one", "two")

        client = await self.open(query="since=s1")

        self.assertEqual(await client.next_entries(), ["two"])

    async def test_alias_of_the_path_works(self) -> None:
        """Clients of other authors use the unstable path until there is a stable one."""
        path = "/_matrix/client/unstable/stream"

        status, error = await self.get(path=path, token="alice", upgrade=False)

        self.assertEqual((status, error["errcode"]), (426, "M_UNRECOGNIZED"))

    async def test_query_is_that_of_sync(self) -> None:
        """A client needs no second way to say what it wants."""
        await self.open(query="filter=7&full_state=true")
        await self.open(query="org.matrix.msc4222.use_state_after=true")

        unstable = "org.matrix.msc4222.state_after"
        self.assertEqual(self.engine.requests, [("7", True, None), (None, False, unstable)])

    async def test_mistakes_in_the_query_are_ordinary_errors(self) -> None:
        """A client gets an error, which a failed WebSocket handshake alone would not give."""
        for query in ("since=nonsense", "filter=broken", "set_presence=asleep"):
            status, error = await self.get(query, token="alice")

            self.assertEqual((status, error["errcode"]), (400, "M_INVALID_PARAM"), query)

    async def test_token_in_the_url_is_refused(self) -> None:
        """URLs end in logs of proxies; only an administrator may allow it."""
        status, error = await self.get("access_token=alice")

        self.assertEqual((status, error["errcode"]), (401, "M_MISSING_TOKEN"))

    async def test_guests_may_listen(self) -> None:
        """Guests may sync, by any transport."""
        self.engine.append("one")

        client = await self.open("guest")

        self.assertEqual(await client.next_entries(), ["one"])


class UpdateTests(StreamTestCase):
    async def test_updates_are_pushed_to_all(self) -> None:
        """A message reaches all connected clients."""
        clients = [await self.open("alice"), await self.open("tablet"), await self.open("bob")]
        for client in clients:
            await client.next_entries()

        self.engine.append("hello")

        self.assertEqual([await client.next_entries() for client in clients], [["hello"]] * 3)

    async def test_long_update_is_compressed_for_clients_that_negotiated_it(self) -> None:
        """A first sync is mostly repetition, and phones pay for each byte."""
        entry = "again and again " * 20_000

        plain, compressed = await self.open(), await self.open("bob", compressed=True)
        await plain.next_entries()
        await compressed.next_entries()
        self.engine.append(entry)

        self.assertEqual(await compressed.next_entries(), [entry])
        self.assertEqual(await plain.next_entries(), [entry])
        received = compressed.trafficStats.incomingOctetsWireLevel
        self.assertLess(received, len(entry) / 20)

    async def test_update_may_be_larger_than_what_a_client_may_send(self) -> None:
        """The limit on frames is on what comes in: a first sync has megabytes."""
        entry = "x" * 3 * self.settings.max_frame
        client = await self.open()
        await client.next_entries()

        self.engine.append(entry)

        self.assertEqual(await client.next_entries(), [entry])

    async def test_open_socket_keeps_its_user_present(self) -> None:
        """As a long poll that is held does."""
        client = await self.open()
        await client.next_entries()
        before = self.presence.open

        client.sendClose(1000)
        await client.closed
        await pause()

        self.assertEqual((before, self.presence.open), (1, 0))
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.engine.wakers, set())

    async def test_ignored_users_are_applied_to_open_sockets(self) -> None:
        """An ignored user is hidden at once, not after the next reconnection."""
        client = await self.open(query="filter=7")
        await client.next_entries()

        self.connections.apply(
            [AccountDataChanged(1, "@alice:test", None, "m.ignored_user_list", b"{}")]
        )
        await pause()

        self.assertEqual(self.engine.requests, [("7", False, None)] * 2)

    async def test_failure_closes_with_a_code(self) -> None:
        """A client must not wait endlessly for updates that cannot be made."""
        for error, expected in ((ZeroDivisionError(), 1011), (Unavailable("no database"), 1013)):
            client = await self.open()
            await client.next_entries()

            self.engine.error = error
            self.engine.append("never seen")
            code = await client.closed

            self.assertEqual(code, expected)
            self.engine.error = None
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class CallTests(StreamTestCase):
    rates: ClassVar[dict[str, RateSettings]] = {"message": RateSettings(per_second=0.1, burst=1)}

    async def test_call_is_answered_under_its_id(self) -> None:
        """A response goes to the socket that made the call."""
        client = await self.open()
        await client.next_entries()

        self.assertEqual(await client.call("ping", "a"), {"result": {}})
        self.assertEqual(await client.call("ping", "b"), {"result": {}})

    async def test_unknown_method_is_unrecognized(self) -> None:
        """A newer client learns what an older server lacks."""
        client = await self.open()
        await client.next_entries()

        response = await client.call("levitate")

        self.assertEqual(response["error"]["errcode"], "M_UNRECOGNIZED")

    async def test_frames_that_are_no_calls_are_answered_and_the_socket_lives_on(self) -> None:
        """One bad frame must not cost the client its place."""
        client = await self.open()
        await client.next_entries()
        frames = {
            b"{": (None, "M_NOT_JSON"),
            b"": (None, "M_NOT_JSON"),
            b'{"id": "1", "method": "ping", "params": NaN}': (None, "M_NOT_JSON"),
            b'"\xff"': (None, "M_NOT_JSON"),
            b"[" * 5000: (None, "M_BAD_JSON"),
            b"[]": (None, "M_BAD_JSON"),
            b"{}": (None, "M_BAD_JSON"),
            b'{"id": 7, "method": "ping"}': (None, "M_BAD_JSON"),
            b'{"id": "8"}': ("8", "M_BAD_JSON"),
            b'{"id": "", "method": "ping"}': ("", "M_BAD_JSON"),
            b'{"id": "9", "method": "ping", "params": []}': ("9", "M_BAD_JSON"),
            b'{"id": "10", "method": "ack", "params": {}}': ("10", "M_BAD_JSON"),
            b'{"id": "11", "method": "ack", "params": {"next_batch": "?"}}':
                ("11", "M_INVALID_PARAM"),
            b'{"id": "12", "method": "ack", "params": {"next_batch": "\\u0000"}}':
                ("12", "M_BAD_JSON"),
            b'{"id": "13", "method": "filter", "params": {"filter": "broken"}}':
                ("13", "M_INVALID_PARAM"),
        }  # fmt: skip
        for frame, (frame_id, errcode) in frames.items():
            client.say(frame)

            response = await client.frame()

            self.assertEqual(
                (response["id"], response["error"]["errcode"]), (frame_id, errcode), frame
            )
        self.assertEqual(await client.call("ping"), {"result": {}})

    async def test_params_may_be_left_out(self) -> None:
        """A method that needs nothing is called with nothing."""
        client = await self.open()
        await client.next_entries()

        client.say({"id": "1", "method": "ping"})

        self.assertEqual(await client.frame(), {"id": "1", "result": {}})

    async def test_frame_over_the_limit_is_refused_and_the_socket_lives_on(self) -> None:
        """A message that is too long is the user's mistake, not the connection's."""
        client = await self.open()
        await client.next_entries()

        client.say({"id": "1", "method": "ping", "params": {"x": "x" * self.settings.max_frame}})
        response = await client.frame()

        self.assertEqual((response["id"], response["error"]["errcode"]), ("1", "M_TOO_LARGE"))
        self.assertEqual(await client.call("ping"), {"result": {}})

    async def test_frame_far_over_the_limit_closes_the_socket(self) -> None:
        """A client cannot fill the server's memory."""
        client = await self.open()
        await client.next_entries()

        client.say(b"x" * 3 * self.settings.max_frame)

        self.assertEqual(await client.closed, 1009)

    async def test_binary_frames_close_the_socket(self) -> None:
        """The subprotocol has none, so the client speaks something else."""
        client = await self.open()
        await client.next_entries()

        client.sendMessage(b"{}", isBinary=True)

        self.assertEqual(await client.closed, 1003)

    async def test_defect_of_the_server_is_answered_without_details(self) -> None:
        """Internal errors are logged, not sent to the client."""
        client = await self.open()
        await client.next_entries()

        response = await client.call("fail")

        self.assertEqual(response, {"error": {"errcode": "M_UNKNOWN", "error": "Internal error"}})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_rate_limits_are_those_of_http(self) -> None:
        """A client cannot bypass the limits of one transport with the other."""
        client = await self.open()
        await client.next_entries()

        first, second = await client.call("limited"), await client.call("limited")

        self.assertEqual(first, {"result": {}})
        self.assertEqual(second["error"]["errcode"], "M_LIMIT_EXCEEDED")
        self.assertGreater(second["error"]["retry_after_ms"], 0)

    async def test_guests_may_not_call_everything(self) -> None:
        """The same endpoints are closed to guests as over HTTP."""
        client = await self.open("guest")
        await client.next_entries()

        response = await client.call("limited")

        self.assertEqual(response["error"]["errcode"], "M_GUEST_ACCESS_FORBIDDEN")

    async def test_slow_call_does_not_hold_up_the_next(self) -> None:
        """Answers come when they are ready."""
        client = await self.open()
        await client.next_entries()

        client.say({"id": "slow", "method": "hold"})
        quick = await client.call("ping", "quick")
        self.extra_methods.release.callback(None)

        self.assertEqual(quick, {"result": {}})
        self.assertEqual((await client.frame())["id"], "slow")

    async def test_too_many_calls_at_once_wait_their_turn(self) -> None:
        """One client cannot make the server hold thousands of calls for it; none is lost."""
        client = await self.open()
        await client.next_entries()
        count = 20 * MAX_CALLS
        padding = "x" * 2_000
        for number in range(count):
            client.say({"id": str(number), "method": "hold", "params": {"padding": padding}})
        await pause(0.1)
        held = self.extra_methods.held

        self.extra_methods.release.callback(None)
        answered = {(await client.frame())["id"] for _ in range(count)}

        self.assertLess(held, count / 4)
        self.assertEqual(len(answered), count)

    async def test_filter_is_used_from_the_next_update_on(self) -> None:
        """A client changes its filter without a new connection."""
        client = await self.open()
        await client.next_entries()

        by_id = await client.call("filter", filter="7")
        spelled_out = await client.call("filter", filter={"room": {"rooms": []}})

        self.assertEqual([by_id, spelled_out], [{"result": {}}] * 2)
        self.assertEqual(
            [text for text, *_ in self.engine.requests], [None, "7", '{"room":{"rooms":[]}}']
        )


class SlowReaderTests(StreamTestCase):
    settings = WebSocketSettings(send_buffer=16_384, ack_window=2)

    def shrink_buffers(self, client: Client) -> None:
        """Let the kernel hold little of what is on its way to a client."""
        client.transport.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 65_536)
        for socket in cast("Any", self.server.sockets):
            socket.transport.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 65_536)

    async def test_slow_client_is_sent_one_update_for_all_that_it_missed(self) -> None:
        """A phone in a tunnel costs the server no memory, and is up to date soon after."""
        client = await self.open()
        await client.next_entries()
        self.shrink_buffers(client)
        client.transport.pauseProducing()
        count, entry = 300, "x" * 50_000
        for _ in range(count):
            self.engine.append(entry)
            await pause(0.001)

        client.transport.resumeProducing()
        received = 0
        updates = 0
        while received < count:
            received += len(await client.next_entries())
            updates += 1

        self.assertEqual(received, count)
        self.assertLess(updates, count / 2)
        self.assertGreater(max(client.sizes), 100 * len(entry))

    async def test_who_does_not_read_answers_is_not_read_either(self) -> None:
        """A client cannot make the server's memory grow by calling and never reading."""
        client = await self.open()
        await client.next_entries()
        self.shrink_buffers(client)
        client.transport.pauseProducing()
        frame = b'{"id": "%s", "method": "ping"}' % (b"x" * 250)
        count = 8_000
        for _ in range(count):
            client.say(frame)
            if len(client.transport._tempDataBuffer) % 100 == 99:
                await pause(0.001)
        await pause(0.2)
        buffered = sum(
            len(socket.transport.dataBuffer) + socket.transport._tempDataLen
            for socket in cast("Any", self.server.sockets)
        )

        client.transport.resumeProducing()
        responses = [await client.frame() for _ in range(count)]

        self.assertLess(buffered, 300_000)
        self.assertEqual({len(response["id"]) for response in responses}, {250})

    async def test_client_that_acknowledges_has_a_window(self) -> None:
        """A client that works slowly says so, and is not flooded."""
        client = await self.open()
        first = await client.frame()
        await client.call("ack", next_batch=first["next_batch"])
        updates = []
        for number in range(6):
            self.engine.append(str(number))
            await pause()
        updates += client.frames
        client.frames.clear()

        await client.call("ack", next_batch=updates[-1]["next_batch"])
        rest = await client.next_entries()

        self.assertEqual(len(updates), 2)
        self.assertEqual(rest, ["2", "3", "4", "5"])


class BoundTests(StreamTestCase):
    settings = WebSocketSettings(max_per_device=2, max_per_user=3)

    async def test_same_connection_opened_again_replaces_the_first(self) -> None:
        """A client whose network came back does not fight with its own ghost."""
        first = await self.open()
        second = await self.open()

        self.assertEqual(await first.closed, 4001)
        self.assertEqual(await second.next_entries(), [])
        self.assertEqual(len(self.connections), 1)

    async def test_named_connections_of_a_device_live_side_by_side(self) -> None:
        """Two tabs of a browser share a device."""
        clients = [await self.open(query="conn=a"), await self.open(query="conn=b")]

        self.assertEqual([await client.next_entries() for client in clients], [[], []])
        self.assertEqual(len(self.connections), 2)

    async def test_device_and_user_have_only_so_many(self) -> None:
        """A client that leaks connections does not take the server with it."""
        await self.open(query="conn=a")
        await self.open(query="conn=b")
        of_device, _ = await self.get("conn=c", token="alice")
        await self.open("tablet", query="conn=a")
        of_user, error = await self.get("conn=b", token="tablet")
        again = await self.open(query="conn=b")

        self.assertEqual((of_device, of_user), (429, 429))
        self.assertEqual(error["errcode"], "M_LIMIT_EXCEEDED")
        self.assertEqual(await again.next_entries(), [])


class EndTests(StreamTestCase):
    settings = WebSocketSettings(ping_interval=0.5)

    async def test_removed_device_is_cut_off_at_once(self) -> None:
        """A stolen phone that was logged out reads nothing more."""
        phone, tablet = await self.open(), await self.open("tablet")

        self.connections.apply([DevicesRemoved(1, "@alice:test", ("PHONE",))])

        self.assertEqual(await phone.closed, 4003)
        await tablet.next_entries()
        self.assertEqual(await tablet.call("ping"), {"result": {}})

    async def test_closing_a_user_closes_all_their_devices(self) -> None:
        """An account that was locked is locked everywhere."""
        phone, tablet, bob = await self.open(), await self.open("tablet"), await self.open("bob")

        self.connections.close_user("@alice:test")

        self.assertEqual([await phone.closed, await tablet.closed], [4003, 4003])
        await bob.next_entries()
        self.assertEqual(await bob.call("ping"), {"result": {}})

    async def test_call_with_a_token_that_has_ended_is_the_last(self) -> None:
        """An expired token ends the session, and the client gets the reason."""
        client = await self.open()
        await client.next_entries()
        del self.tokens.callers["alice"]

        response = await client.call("ping")

        self.assertEqual(response["error"]["errcode"], "M_UNKNOWN_TOKEN")
        self.assertEqual(await client.closed, 4003)

    async def test_tokens_of_silent_sockets_are_checked_too(self) -> None:
        """A silent client must not keep receiving updates with an expired token."""
        client = await self.open()
        bob = await self.open("bob")
        await bob.next_entries()
        del self.tokens.callers["alice"]

        await self.connections.check_tokens()

        self.assertEqual(await client.closed, 4003)
        self.assertEqual(await bob.call("ping"), {"result": {}})

    async def test_shutdown_closes_sockets_with_a_code_to_reconnect(self) -> None:
        """A restart is not an error, and clients reconnect by themselves."""
        client = await self.open()

        self.connections.stop()

        self.assertEqual(await client.closed, 1012)

    async def test_dead_client_is_noticed(self) -> None:
        """A phone whose battery died does not count as present."""
        client = await self.open()
        await client.next_entries()
        cast("Any", client).sendPong = lambda payload: None

        await client.closed

        self.assertEqual(len(self.connections), 0)
