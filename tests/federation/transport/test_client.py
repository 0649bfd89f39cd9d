"""Requests to other servers: as specified, and safe against any response."""

from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.tcp import Client
from twisted.web.server import Request

from federation.paths import path_of
from federation.transport import connections
from federation.transport.errors import (
    BackingOff,
    FederationDenied,
    InvalidResponse,
    RemoteError,
    TooBusy,
    Unreachable,
)
from homeserver.outbound import graceful_close
from homeserver.outbound.client_tls import ClientTls
from homeserver.protocol.signing.signatures import verify_signed_json
from homeserver.protocol.signing.x_matrix import parse_authorization, request_object
from tests.federation.transport.client_test_case import HERE, KEY, ClientTestCase
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.scripted_peer import SILENT, ScriptedPeer, Seen, error, plain

PATH = "/_matrix/federation/v1/thing"


class RequestTests(ClientTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = self.peer()
        self.there.answers[PATH] = {"fine": True}

    async def test_an_answer_is_decoded(self) -> None:
        """In the shape that the caller expects."""
        plain_answer = await self.client.get(self.there.name, PATH)
        typed = await self.client.get(self.there.name, PATH, response_type=dict[str, bool])

        self.assertEqual((plain_answer, typed), ({"fine": True}, {"fine": True}))

    async def test_requests_are_signed_for_their_destination(self) -> None:
        """With method, path, query and body, so that none can be used for anything else."""
        content = {"text": "für dich", "number": 5}
        await self.client.get(self.there.name, PATH, {"a": ["b c", "&"], "d": "é"})
        await self.client.put(self.there.name, PATH, content)
        await self.client.post(self.there.name, PATH, b'{"canonical":"already"}')

        get, put, post = self.there.seen
        self.assertEqual(get.uri, f"{PATH}?a=b%20c&a=%26&d=%C3%A9")
        for seen, body in ((get, None), (put, content), (post, {"canonical": "already"})):
            self.check_signature(seen, body)
        self.assertEqual(put.header("Content-Type"), "application/json")

    async def test_a_request_can_go_without_a_signature(self) -> None:
        """Keys are requested by servers that know no keys."""
        await self.client.get(self.there.name, PATH, signed=False)

        self.assertIsNone(self.there.seen[0].header("Authorization"))

    async def test_parts_of_a_path_are_escaped(self) -> None:
        """Identifiers hold slashes, percent signs and anything else."""
        self.assertEqual(path_of("/x", "a/b", "#ü:c%"), "/x/a%2Fb/%23%C3%BC%3Ac%25")

    async def test_a_connection_serves_many_requests(self) -> None:
        """A TLS handshake for each message would make chat slow."""
        ports = []

        def note(request: Request) -> Any:
            ports.append(request.getClientAddress().port)  # type: ignore[attr-defined]
            return {}

        self.there.answers[PATH] = note
        for _ in range(3):
            await self.client.put(self.there.name, PATH, {})

        self.assertEqual(len(set(ports)), 1)

    async def test_a_put_is_repeated_when_a_kept_connection_was_closed(self) -> None:
        """Servers close idle connections at any moment; no transaction is lost by that."""
        self.there.answers[PATH] = close_once()
        answer = await self.client.put(self.there.name, PATH, {})

        self.assertEqual(answer, {})
        self.assertEqual(len(self.there.seen), 2)

    async def test_a_post_is_never_repeated(self) -> None:
        """It may have been carried out: keys for one device must not be claimed twice."""
        self.there.answers[PATH] = close_once()

        await self.fails(Unreachable, self.client.post(self.there.name, PATH, {}))

        self.assertEqual(len(self.there.seen), 1)

    async def test_no_more_than_some_requests_run_at_once(self) -> None:
        """The others wait for their turn: a slow server ties down a few connections, not all."""
        waiting: list[Request] = []

        def hold(request: Request) -> Any:
            waiting.append(request)
            return SILENT

        self.there.answers[PATH] = hold
        many = connections.MAX_CONCURRENT_REQUESTS + 3
        running = [ensureDeferred(self.client.get(self.there.name, PATH)) for _ in range(many)]
        await self.until(lambda: len(waiting) == connections.MAX_CONCURRENT_REQUESTS)
        self.assertEqual(len(self.there.seen), connections.MAX_CONCURRENT_REQUESTS)
        finished = 0
        while finished < many:
            await self.until(lambda: waiting)
            request = waiting.pop()
            request.write(b"{}")
            request.finish()
            finished += 1
        for one in running:
            await one

    def check_signature(self, seen: Seen, content: Any) -> None:
        """The request has this server's signature, for this destination."""
        header = parse_authorization(seen.header("Authorization") or "")
        self.assertEqual((header.origin, header.destination), (HERE, self.there.name))
        signed = request_object(seen.method, seen.uri, HERE, self.there.name, content)
        signatures = {HERE: {header.key_id: header.signature}}
        verify_signed_json({**signed, "signatures": signatures}, HERE, KEY.key_id, KEY.verify_key)
        self.assertEqual(msgspec.json.decode(seen.body) if seen.body else None, content)


class PlaceTests(ClientTestCase):
    async def test_the_delegated_host_is_in_the_request(self) -> None:
        """A web server with many names selects by `Host` and SNI, but the signature is for the
        server's own name.
        """
        there = self.peer(certified_for="delegated.example")
        there.answers[PATH] = {}
        self.delegations.known["there.example"] = "delegated.example"
        self.services.offer("_matrix-fed._tcp.delegated.example", ("127.0.0.1", there.port))

        await self.client.get("there.example", PATH)

        [seen] = there.seen
        self.assertEqual(seen.header("Host"), "delegated.example")
        header = parse_authorization(seen.header("Authorization") or "")
        self.assertEqual(header.destination, "there.example")

    async def test_a_port_is_in_the_host_header(self) -> None:
        """As in the server's name."""
        there = self.peer()
        there.answers[PATH] = {}

        await self.client.get(there.name, PATH)

        self.assertEqual(there.seen[0].header("Host"), there.name)

    async def test_the_next_target_is_tried_where_one_cannot_be_connected_to(self) -> None:
        """A server with two machines is reached while one of them is down."""
        there = self.peer(certified_for="there.example")
        there.answers[PATH] = {}
        self.services.offer(
            "_matrix._tcp.there.example", ("127.0.0.1", 1), ("127.0.0.1", there.port)
        )

        await self.client.get("there.example", PATH)

        self.assertEqual(len(there.seen), 1)

    async def test_a_server_that_moved_is_found_at_its_new_place(self) -> None:
        """Connections to the old place are not used any more."""
        old, new = (
            self.peer(certified_for="there.example"),
            self.peer(certified_for="there.example"),
        )
        for place in (old, new):
            place.answers[PATH] = {}
            self.services.offer("_matrix-fed._tcp.there.example", ("127.0.0.1", place.port))
            await self.client.get("there.example", PATH)

        self.assertEqual((len(old.seen), len(new.seen)), (1, 1))


class MisbehaviourTests(ClientTestCase):
    async def test_errors_of_a_server_are_raised_with_their_fields(self) -> None:
        """The caller decides by errcode and status."""
        there = self.peer()
        there.answers[PATH] = error(429, "M_LIMIT_EXCEEDED", retry_after_ms=1_000)

        refused = await self.fails(RemoteError, self.client.get(there.name, PATH))

        self.assertEqual((refused.status, refused.errcode), (429, "M_LIMIT_EXCEEDED"))
        self.assertEqual(refused.retry_after_ms, 1_000)
        self.assertTrue(refused.is_alive)

    async def test_the_header_says_when_to_try_again(self) -> None:
        """The member of the body is deprecated: many servers leave it out."""
        there = self.peer()
        for header, member, wait_ms in (
            ("3", {}, 3_000),
            ("3", {"retry_after_ms": 1}, 3_000),
            ("soon", {"retry_after_ms": 1}, 1),
            ("-1", {}, None),
            ("9" * 5_000, {}, 3_600_000),
            ("Fri, 31 Dec 9999 23:59:59 GMT", {}, 3_600_000),
            ("Sun, 06 Nov 1994 08:49:37 GMT", {}, 0),
            ("Sun, 06 Nov 99999 08:49:37 GMT", {}, None),
        ):
            body = msgspec.json.encode({"errcode": "M_LIMIT_EXCEEDED", "error": "No", **member})
            there.answers[PATH] = plain(429, body, **{"Retry-After": header})

            refused = await self.fails(RemoteError, self.client.get(there.name, PATH))

            self.assertEqual(refused.retry_after_ms, wait_ms, header)

    async def test_a_server_cannot_name_a_time_without_end(self) -> None:
        """Nothing would be sent to it any more, and clients would stop all their requests."""
        there = self.peer()
        there.answers[PATH] = error(429, "M_LIMIT_EXCEEDED", retry_after_ms=2**63)

        refused = await self.fails(RemoteError, self.client.get(there.name, PATH))

        self.assertEqual(refused.retry_after_ms, 3_600_000)
        self.assertEqual(refused.limit_exceeded().retry_after_ms, 60_000)

    async def test_invalid_responses_are_recognised(self) -> None:
        """Any program may respond in place of the server."""
        for behaviour in (
            plain(200, b""),
            plain(200, b"<html>"),
            plain(200, b"[1]"),
            plain(200, b'{"a": NaN}'),
            plain(200, b'{"a": "\xff"}'),
            plain(200, b"[" * 50_000),
            plain(502, b"<html>Bad gateway"),
            plain(403, b"{}"),
            plain(400, b'{"errcode": 5}'),
            plain(200, b'{"a":"' + b"x" * 2_000 + b'"}'),
            plain(500, b'{"errcode":"' + b"x" * 2_000 + b'"}'),
            in_pieces([b'{"a":"', *[b"x" * 100] * 30]),
        ):
            there = self.peer()
            there.answers[PATH] = behaviour
            attempt = self.client.get(there.name, PATH, max_response=1_000)
            failed = await self.fails(InvalidResponse, attempt)
            self.assertFalse(failed.is_alive)

    async def test_any_404_means_not_found(self) -> None:
        """Older servers send plain text where they lack an endpoint; the caller continues."""
        there = self.peer()
        there.answers[PATH] = plain(404, b"404 page not found")

        refused = await self.fails(RemoteError, self.client.get(there.name, PATH))

        self.assertEqual((refused.status, refused.errcode), (404, ""))

    async def test_redirects_are_not_followed(self) -> None:
        """They would lead a signed request to a server that it was not meant for."""
        there, other_peer = self.peer(), self.peer()
        other_peer.answers[PATH] = {}
        there.answers[PATH] = plain(307, b"", Location=f"https://{other_peer.name}{PATH}")

        await self.fails(InvalidResponse, self.client.get(there.name, PATH), "307")

        self.assertEqual(other_peer.seen, [])

    async def test_a_response_that_is_not_http_is_invalid(self) -> None:
        """Another service may listen on the port."""
        there = self.peer()
        there.answers[PATH] = speak_nonsense

        await self.fails(Unreachable, self.client.get(there.name, PATH))

    async def test_a_server_that_does_not_hang_up_is_hung_up_on(self) -> None:
        """Connections to it do not pile up after answers that were cut off."""
        self.patch(graceful_close, "LINGER_SECONDS", 0.1)
        there = self.peer()
        lost: list[Any] = []

        def never_end(request: Request) -> Any:
            request.notifyFinish().addErrback(lost.append)
            request.channel.transport.transport.stopReading()
            request.write(b"x" * 2_000)
            return SILENT

        there.answers[PATH] = never_end
        await self.fails(InvalidResponse, self.client.get(there.name, PATH, max_response=1_000))

        await self.until(lambda: not open_connections_to(there.port))

    async def test_silence_and_slow_bytes_end(self) -> None:
        """A server that sends a byte now and then delays a caller only until the timeout."""
        for behaviour in (lambda _: SILENT, in_pieces([b'{"a":"', b"x"])):
            there = self.peer()
            there.answers[PATH] = behaviour
            attempt = self.client.get(there.name, PATH, timeout=0.3)
            await self.fails(Unreachable, attempt, "within 0.3 seconds")

    async def test_large_responses_together_do_not_fill_the_memory(self) -> None:
        """Each may be large, but an attacker cannot have many read at the same time."""
        client = self.make_client(max_together=3_000)
        whole = b'{"a":"' + b"x" * 2_000 + b'"}'
        one, other = self.peer(), self.peer()
        held: list[Request] = []

        def hold(request: Request) -> Any:
            request.write(whole[:2_000])
            held.append(request)
            return SILENT

        one.answers[PATH] = hold
        other.answers[PATH] = plain(200, whole)
        first = ensureDeferred(client.get(one.name, PATH))
        await self.until(lambda: client.memory_taken >= 2_000)

        failed = await self.fails(TooBusy, client.get(other.name, PATH))
        held[0].write(whole[2_000:])
        held[0].finish()
        await first

        self.assertTrue(failed.is_alive)
        self.assertEqual(len((await client.get(other.name, PATH))["a"]), 2_000)
        self.assertEqual(client.memory_taken, 0)

    async def test_a_server_that_refuses_connections_is_unreachable(self) -> None:
        """The log has the reason."""
        await self.fails(Unreachable, self.client.get("127.0.0.1:1", PATH), "refused")

    async def test_a_wrong_certificate_ends_the_connection(self) -> None:
        """For another name, or by an unknown authority."""
        other_name = self.peer(certified_for="127.0.0.2")
        stranger = ScriptedPeer(CertificateAuthority(self.other_folder()))
        self.addCleanup(lambda: Deferred.fromCoroutine(stranger.stop()))

        await self.fails(
            Unreachable, self.client.get(other_name.name, PATH), "not one for 127.0.0.1"
        )
        await self.fails(Unreachable, self.client.get(stranger.name, PATH), "certificate")

        self.assertEqual(other_name.seen + stranger.seen, [])
        careless = self.make_client(tls=ClientTls(verify=False))
        stranger.answers[PATH] = {}
        self.assertEqual(await careless.get(stranger.name, PATH, despite_backoff=True), {})

    def other_folder(self) -> Path:
        """The folder of another authority."""
        folder = self.folder / "stranger"
        folder.mkdir()
        return folder

    async def test_private_addresses_are_refused(self) -> None:
        """A name that an attacker points at this network gives no access to it."""
        there = self.peer(certified_for="there.example")
        self.services.offer("_matrix-fed._tcp.there.example", ("localhost", there.port))
        careful = self.make_client(private=False)

        for name in (there.name, f"localhost:{there.port}", "there.example", "[::1]:1"):
            await self.fails(Unreachable, careful.get(name, PATH), "not a public address")

        self.assertEqual(there.seen, [])

    async def test_names_that_are_none_are_not_looked_up(self) -> None:
        """Event senders and aliases bring in any text."""
        for name in ("", "a b", "there.example:99999999"):
            await self.fails(FederationDenied, self.client.get(name, PATH))
        await self.fails(Unreachable, self.client.get("there.example:70000", PATH), "port")
        self.assertEqual(self.delegations.looked_up + self.services.looked_up, [])

    async def test_some_servers_get_no_requests(self) -> None:
        """Those that the operator denies, and this one itself."""
        client = self.make_client(deny=["*.bad.example"])

        await self.fails(FederationDenied, client.get("very.bad.example", PATH), "permit")
        await self.fails(FederationDenied, client.get(HERE, PATH), "itself")


class BackoffTests(ClientTestCase):
    async def test_a_failed_server_is_backed_off_from(self) -> None:
        """Requests do not wait for the same server again and again, unless there is a reason."""
        there = self.peer()
        there.answers[PATH] = plain(502, b"")
        await self.fails(InvalidResponse, self.client.get(there.name, PATH))

        await self.fails(BackingOff, self.client.get(there.name, PATH), "backing off")
        self.assertEqual(len(there.seen), 1)

        there.answers[PATH] = {}
        await self.client.get(there.name, PATH, despite_backoff=True)
        await self.client.get(there.name, PATH)
        self.assertEqual(len(there.seen), 3)

    async def test_a_refusal_is_a_sign_of_life(self) -> None:
        """A server that says no is there."""
        there = self.peer()
        there.answers[PATH] = error(403, "M_FORBIDDEN")

        for _ in range(2):
            await self.fails(RemoteError, self.client.get(there.name, PATH))

    async def test_a_fault_over_there_is_not(self) -> None:
        """Its database is down; more requests would not help it."""
        there = self.peer()
        there.answers[PATH] = error(500, "M_UNKNOWN")

        await self.fails(RemoteError, self.client.get(there.name, PATH))
        await self.fails(BackingOff, self.client.get(there.name, PATH))

    async def test_a_cancelled_request_is_no_failure(self) -> None:
        """A request that its caller cancels says nothing about the server."""
        there = self.peer()
        there.answers[PATH] = lambda _: SILENT
        running = ensureDeferred(self.client.get(there.name, PATH))
        running.addErrback(lambda _: None)
        running.cancel()
        await running

        self.destinations.check(there.name)


def open_connections_to(port: int) -> list[Any]:
    """Those of this process, as a client."""
    return [
        reader
        for reader in reactor.getReaders()  # type: ignore[attr-defined]
        if isinstance(reader, Client) and reader.addr[1] == port
    ]


def close_once() -> Any:
    """Closes the first connection without an answer, and answers the next request."""
    left = [True]

    def answer(request: Request) -> Any:
        if left and left.pop():
            request.channel.transport.abortConnection()
            return SILENT
        return {}

    return answer


def in_pieces(pieces: list[bytes]) -> Any:
    """Writes these, and never ends."""

    def answer(request: Request) -> Any:
        for piece in pieces:
            request.write(piece)
        return SILENT

    return answer


def speak_nonsense(request: Request) -> Any:
    """Answers in no known protocol."""
    request.channel.transport.write(b"220 mail.example ESMTP\r\n")
    request.channel.transport.loseConnection()
    return SILENT
