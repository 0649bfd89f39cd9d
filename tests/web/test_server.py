"""The HTTP server, from raw bytes to raw bytes."""

from typing import Any

from homeserver.web import server as server_module
from homeserver.web.request import CLIENT_GONE
from tests.web.example_api import Note, NotesTestCase

CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}


class AnswerTests(NotesTestCase):
    async def test_result_is_answered_as_json_with_its_length(self) -> None:
        """The client gets the result of a handler."""
        response = await self.ask("GET", "/_matrix/client/v3/whoami", token="alice")

        self.assertEqual(response.status, 200)
        self.assertEqual(response.json, {"user_id": "@alice:test"})
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual(response.headers["cache-control"], "no-store")
        self.assertEqual(response.headers["date"], "Thu, 01 Jan 1970 00:00:00 GMT")

    async def test_every_answer_has_the_cors_headers(self) -> None:
        """Without them a browser shows a web client not even the error."""
        for path in ("/_matrix/client/v3/whoami", "/nowhere", "/html", "/broken"):
            response = await self.ask("GET", path)

            self.assertEqual(response.headers | CORS, response.headers, path)
        self.flushLoggedErrors(KeyError)

    async def test_preflight_is_answered_everywhere_without_running_the_endpoint(self) -> None:
        """Browsers send OPTIONS, without a token, before the real request."""
        for path in ("/_matrix/client/v3/notes/a", "/nowhere", "/admin"):
            response = await self.ask("OPTIONS", path)

            self.assertEqual(response.status, 204)
            self.assertEqual(response.headers | CORS, response.headers)
            self.assertNotIn("content-length", response.headers)
        self.assertEqual(self.notes.calls, [])

    async def test_preflight_names_the_headers_of_the_route(self) -> None:
        """A browser sends a web client's other headers only where the server allows them."""
        path, asks = "/_matrix/client/v3/notes/a", "Access-Control-Request-Method"
        usual = CORS["access-control-allow-headers"]
        for method, allowed in (("GET", "If-None-Match"), ("PUT", usual), ("X", usual)):
            response = await self.ask("OPTIONS", path, headers=[(asks, method)])

            self.assertEqual(response.status, 204)
            self.assertEqual(response.headers["access-control-allow-headers"], allowed)

    async def test_no_result_is_an_empty_object(self) -> None:
        """The specification requires a JSON object even without a result."""
        response = await self.ask("GET", "/admin", token="admin")

        self.assertEqual((response.status, response.body), (200, b"{}"))

    async def test_raw_json_is_not_encoded_again(self) -> None:
        """Stored events are spliced into responses byte for byte."""
        response = await self.ask("GET", "/raw")

        self.assertEqual(response.body, b'{"as":  "it is"}')

    async def test_answer_chooses_status_and_type(self) -> None:
        """A page for users is not JSON."""
        response = await self.ask("GET", "/html")

        self.assertEqual((response.status, response.body), (201, b"<p>"))
        self.assertEqual(response.headers["content-type"], "text/html")

    async def test_head_is_get_without_the_body(self) -> None:
        """Monitoring uses HEAD."""
        wire = await self.connect()
        wire.request("HEAD", "/raw")
        response = await wire.response(bodiless=True)
        wire.request("GET", "/raw")

        self.assertEqual((response.status, response.headers["content-length"]), (200, "16"))
        self.assertEqual((await wire.response()).body, b'{"as":  "it is"}')

    async def test_absolute_url_in_the_request_line_is_understood(self) -> None:
        """HTTP allows `GET http://host/path`, and some proxies send it."""
        response = await self.ask("GET", "http://test/raw")

        self.assertEqual(response.status, 200)


class ErrorTests(NotesTestCase):
    async def assert_refused(self, status: int, errcode: str, *args: Any, **kw: Any) -> Any:
        response = await self.ask(*args, **kw)
        self.assertEqual((response.status, response.json["errcode"]), (status, errcode))
        return response

    async def test_known_error_is_the_standard_response(self) -> None:
        """Clients depend on the errcode."""
        response = await self.assert_refused(404, "M_NOT_FOUND", "GET", "/missing")

        self.assertEqual(response.json["error"], "No such thing")

    async def test_defect_shows_the_client_only_the_request_id(self) -> None:
        """An administrator finds the traceback in the log by the id that the user reports."""
        response = await self.assert_refused(500, "M_UNKNOWN", "GET", "/broken")

        [failure] = self.flushLoggedErrors(KeyError)
        self.assertIn("a secret detail", str(failure.value))
        self.assertNotIn("secret", response.json["error"])
        self.assertRegex(response.json["error"], r"request [0-9a-f]{6}-1$")

    async def test_result_that_is_not_json_is_a_defect(self) -> None:
        """An error in a handler must not leave the client waiting."""
        await self.assert_refused(500, "M_UNKNOWN", "GET", "/unencodable")

        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_header_with_a_line_break_is_not_sent(self) -> None:
        """A value taken from a client could otherwise add headers of its own."""
        response = await self.assert_refused(500, "M_UNKNOWN", "GET", "/smuggle")

        self.assertNotIn("set-cookie", response.headers)
        self.flushLoggedErrors(ValueError)

    async def test_unknown_path_is_unrecognised(self) -> None:
        """Clients probe for features this way."""
        await self.assert_refused(404, "M_UNRECOGNIZED", "GET", "/_matrix/client/v3/nothing")

    async def test_wrong_method_gets_the_allowed_ones(self) -> None:
        """405 says that the endpoint exists."""
        path = "/_matrix/client/v3/notes/a"
        response = await self.assert_refused(405, "M_UNRECOGNIZED", "DELETE", path)

        self.assertEqual(response.headers["allow"], "GET, HEAD, OPTIONS, PUT")

    async def test_path_and_query_must_be_text_without_nul(self) -> None:
        """Identifiers are UTF-8, and the database cannot store NUL."""
        for path in ("/_matrix/client/v3/notes/%ff", "/_matrix/client/v3/notes/a%00b"):
            await self.assert_refused(400, "M_INVALID_PARAM", "GET", path)
        for query in ("via=%ff", "via=%00", "limit=many"):
            path = f"/_matrix/client/v3/notes?{query}"
            await self.assert_refused(400, "M_INVALID_PARAM", "GET", path, token="alice")

    async def test_body_that_is_not_json_or_has_the_wrong_shape(self) -> None:
        """The errcode distinguishes malformed JSON from a wrong shape."""
        for body, errcode in (
            (b"{", "M_NOT_JSON"),
            (b"", "M_NOT_JSON"),
            (b'{"text": "\xff"}', "M_NOT_JSON"),
            (b'{"text": 1} x', "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b"{}", "M_BAD_JSON"),
            (b'{"text": 1}', "M_BAD_JSON"),
            (b'{"text": "a\\u0000b"}', "M_BAD_JSON"),
        ):
            path = "/_matrix/client/v3/notes/a"
            await self.assert_refused(400, errcode, "PUT", path, body, token="alice")

    async def test_limit_response_says_when_to_retry(self) -> None:
        """A client that waits for that time succeeds."""
        await self.assert_refused(404, "M_NOT_FOUND", "GET", "/limited")

        response = await self.assert_refused(429, "M_LIMIT_EXCEEDED", "GET", "/limited")

        self.assertEqual(response.headers["retry-after"], "10")
        self.assertEqual(response.json["retry_after_ms"], 10_000)
        self.clock.advance(10)
        await self.assert_refused(404, "M_NOT_FOUND", "GET", "/limited")


class TokenTests(NotesTestCase):
    path = "/_matrix/client/v3/whoami"

    async def test_token_may_stand_in_the_header_or_in_the_query(self) -> None:
        """Servers must support both."""
        for path, token in ((self.path, "alice"), (self.path + "?access_token=alice", None)):
            self.assertEqual((await self.ask("GET", path, token=token)).status, 200)

    async def test_token_that_is_looked_up_in_the_database_works_alike(self) -> None:
        """The first request after a restart is no exception."""
        for path, status in ((self.path, 200), ("/_matrix/client/v3/notes", 200), ("/admin", 403)):
            self.assertEqual((await self.ask("GET", path, token="slow-alice")).status, status)

    async def test_missing_and_unknown_tokens_have_errcodes_of_their_own(self) -> None:
        """On `M_UNKNOWN_TOKEN` a client logs out, on `M_MISSING_TOKEN` it does not."""
        missing = await self.ask("GET", self.path)
        unknown = await self.ask("GET", self.path, token="mallory")
        basic = await self.ask("GET", self.path, headers=[("Authorization", "Basic YTpi")])
        two = await self.ask("GET", self.path + "?access_token=guest", token="alice")

        for response, errcode in (
            (missing, "M_MISSING_TOKEN"),
            (unknown, "M_UNKNOWN_TOKEN"),
            (basic, "M_MISSING_TOKEN"),
            (two, "M_MISSING_TOKEN"),
        ):
            self.assertEqual((response.status, response.json["errcode"]), (401, errcode))

    async def test_guests_and_users_only_go_where_they_may(self) -> None:
        """A route defines its callers, and refuses all others."""
        for path, token, status, errcode in (
            (self.path, "guest", 200, None),
            ("/_matrix/client/v3/notes", "guest", 403, "M_GUEST_ACCESS_FORBIDDEN"),
            ("/admin", "alice", 403, "M_FORBIDDEN"),
        ):
            response = await self.ask("GET", path, token=token)
            self.assertEqual((response.status, response.json.get("errcode")), (status, errcode))

    async def test_optional_token_is_used_but_not_needed(self) -> None:
        """The room directory shows more to those who are logged in."""
        self.assertEqual((await self.ask("GET", "/maybe")).json, {"user_id": None})
        known = await self.ask("GET", "/maybe", token="alice")
        self.assertEqual(known.json, {"user_id": "@alice:test"})
        self.assertEqual((await self.ask("GET", "/maybe", token="mallory")).status, 401)

    async def test_token_is_never_logged(self) -> None:
        """A reader of the access log could take the account over."""
        events = []
        self.patch(server_module.log, "observer", events.append)

        await self.ask("GET", self.path + "?access_token=alice")

        self.assertEqual([event["path"] for event in events], [self.path])
        self.assertEqual(events[0]["user_id"], "@alice:test")
        self.assertFalse([e for e in events for v in e.values() if "access_token" in repr(v)])


class ArgumentTests(NotesTestCase):
    async def test_encoded_slash_stays_inside_its_segment(self) -> None:
        """Room aliases and state keys may hold slashes."""
        response = await self.ask("GET", "/_matrix/client/v3/notes/a%2Fb%20%C3%A9")

        self.assertEqual(response.json, {"name": "a/b é"})

    async def test_body_is_read_whatever_its_content_type(self) -> None:
        """Clients need not say that they send JSON."""
        path, body = "/_matrix/client/v3/notes/a", b'{"text": "hi", "more": 1}'

        for value in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            headers = [("Content-Type", value)]
            response = await self.ask("PUT", path, body, token="alice", headers=headers)
            self.assertEqual(response.status, 200)

        self.assertEqual(self.notes.calls, [("@alice:test", "a", Note("hi"))] * 3)

    async def test_query_is_converted_to_its_types(self) -> None:
        """`limit=5` is a number, and `via` may be repeated."""
        path = "/_matrix/client/v3/notes?limit=5&via=a&via=b+c&other=x"

        response = await self.ask("GET", path, token="alice")

        self.assertEqual(response.json, {"limit": 5, "via": ["a", "b c"]})

    async def test_old_version_of_the_path_is_an_alias(self) -> None:
        """Clients from before 2021 use r0 with the same meaning."""
        response = await self.ask("GET", "/_matrix/client/r0/whoami", token="alice")

        self.assertEqual(response.status, 200)


class DisconnectTests(NotesTestCase):
    async def test_long_poll_is_cancelled_when_its_client_goes_away(self) -> None:
        """No client waits for it any more."""
        wire = await self.connect()
        wire.request("GET", "/poll")
        await self.until(lambda: self.notes.waiting)

        wire.transport.abortConnection()
        await self.until(lambda: self.notes.calls)

        self.assertEqual(self.notes.calls, ["cancelled"])
        self.assertEqual(self.finished, [("GET", "/poll", CLIENT_GONE)])

    async def test_write_runs_to_its_end_without_its_client(self) -> None:
        """A half-stored message is useless."""
        wire = await self.connect()
        wire.request("POST", "/write")
        await self.until(lambda: self.notes.waiting)

        wire.transport.abortConnection()
        await self.until(lambda: not self.server.connections)
        self.notes.waiting[0].callback(None)

        self.assertEqual(self.notes.calls, ["finished"])


class ProxyTests(NotesTestCase):
    proxies = ("127.0.0.1", "10.0.0.0/8")

    async def test_address_is_the_one_that_the_trusted_proxies_saw(self) -> None:
        """Limits count against the client, not the trusted proxy, and clients cannot forge it."""
        headers = [("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.1.2.3")]

        response = await self.ask("GET", "/address", headers=headers)

        self.assertEqual(response.json, {"address": "192.0.2.1"})

    async def test_a_host_with_many_addresses_is_limited_as_one(self) -> None:
        """A host has 64 bits of IPv6 addresses, and could use another one for each password."""
        refused = []
        for address in ("2001:db8:7:1::1", "2001:db8:7:1:ffff::2", "2001:db8:7:2::1", "192.0.2.1"):
            headers = [("X-Forwarded-For", address)]
            response = await self.ask("GET", "/limited", headers=headers)
            refused.append(response.status == 429)

        self.assertEqual(refused, [False, True, False, False])


class NoProxyTests(NotesTestCase):
    async def test_claim_of_an_untrusted_peer_is_ignored(self) -> None:
        """Otherwise clients could evade the limits for log-in."""
        headers = [("X-Forwarded-For", "192.0.2.1")]

        response = await self.ask("GET", "/address", headers=headers)

        self.assertEqual(response.json, {"address": "127.0.0.1"})
