"""Rendezvous sessions over HTTP, in both forms."""

from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import msgspec

from homeserver.accounts.rendezvous.rendezvous_sessions import LIFE_MS, MAX_OF_PARTY, MAX_PAYLOAD
from homeserver.protocol.identifiers import is_valid_opaque_id
from homeserver.protocol.proposals.unstable_names import CONCURRENT_WRITE
from tests.api.account_pages.support import BASE
from tests.support.actors import Client
from tests.support.server import ServerTestCase

JSON = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
TEXT = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
# As browsers send them: for an address that was entered, for a link, and inside of other pages.
SHOWN = (
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
)
FETCHED = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "cross-site"}


class Answer(msgspec.Struct, frozen=True):
    """A response; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class RendezvousTestCase(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {"public_baseurl": BASE, "oauth": {"enabled": True}}

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """The response to a request without access token."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self._http.request(
            method, self.url + path, data=body, headers=sent, allow_redirects=False
        )
        found: dict[str, str] = {}
        for name, values in response.headers.getAllRawHeaders():
            found[name.decode().lower()] = b", ".join(values).decode()
        return Answer(response.code, found, await response.content())

    def assert_error(self, answer: Answer, status: int, errcode: str) -> None:
        self.assertEqual((answer.status, answer.json["errcode"]), (status, errcode), answer.body)


class JsonFormTests(RendezvousTestCase):
    async def create(self, data: str = "", client: Client | None = None) -> Any:
        """A new session."""
        return await (client or self.anybody).request("POST", JSON, {"data": data})

    async def test_two_devices_talk(self) -> None:
        """Each replaces what the other has written, and then the session is ended."""
        self.assertEqual(await self.anybody.request("GET", JSON), {"create_available": True})
        session = await self.create("from A")
        path = f"{JSON}/{session['id']}"
        self.assertEqual(session.keys(), {"id", "sequence_token", "expires_in_ms"})
        self.assertTrue(is_valid_opaque_id(session["id"]))
        self.assertLess(LIFE_MS - 10_000, session["expires_in_ms"])
        self.assertLessEqual(session["expires_in_ms"], LIFE_MS)

        read = await self.anybody.request("GET", path)
        self.assertEqual(read["data"], "from A")
        self.assertEqual(read["sequence_token"], session["sequence_token"])
        self.assertLessEqual(read["expires_in_ms"], session["expires_in_ms"])
        write = {"sequence_token": read["sequence_token"], "data": "från B ☃"}
        written = await self.anybody.request("PUT", path, write)
        self.assertNotEqual(written["sequence_token"], read["sequence_token"])
        self.assertEqual(await self.anybody.request("PUT", path, write), written)
        again = await self.anybody.request("GET", path)
        self.assertEqual(
            (again["data"], again["sequence_token"]), ("från B ☃", written["sequence_token"])
        )

        self.assertEqual(await self.anybody.request("DELETE", path), {})
        for method, body in (("GET", None), ("PUT", write), ("DELETE", None)):
            await self.assert_refused("M_NOT_FOUND", self.anybody.request(method, path, body), 404)

    async def test_a_concurrent_write_is_refused(self) -> None:
        """The later of two devices reads before it writes again."""
        session = await self.create()
        path, token = f"{JSON}/{session['id']}", session["sequence_token"]
        await self.anybody.request("PUT", path, {"sequence_token": token, "data": "one"})

        other = self.anybody.request("PUT", path, {"sequence_token": token, "data": "other"})
        await self.assert_refused(CONCURRENT_WRITE, other, 409)

        self.assertEqual((await self.anybody.request("GET", path))["data"], "one")

    async def test_hostile_payloads_are_refused(self) -> None:
        """None is stored, and none breaks the server."""
        session = await self.create("kept")
        path = f"{JSON}/{session['id']}"
        token = session["sequence_token"]
        for data, status, errcode in (
            (b'"' + b"x" * (MAX_PAYLOAD + 1) + b'"', 413, "M_TOO_LARGE"),
            (b'"' + b"\\u00e9" * MAX_PAYLOAD + b'"', 413, "M_TOO_LARGE"),
            (b'"' + b"x" * 1_000_000 + b'"', 413, "M_TOO_LARGE"),
            (b'"\\ud800"', 400, "M_NOT_JSON"),
            (b'"\xff"', 400, "M_NOT_JSON"),
            (b'"a\\u0000b"', 400, "M_BAD_JSON"),
            (b"1", 400, "M_BAD_JSON"),
            (b"null", 400, "M_BAD_JSON"),
            (b"[" * 20_000, 400, "M_BAD_JSON"),
        ):
            with self.subTest(data[:20]):
                first = b'{"data": %s}' % data
                self.assert_error(await self.ask("POST", JSON, first), status, errcode)
                later = b'{"sequence_token": "%s", "data": %s}' % (token.encode(), data)
                self.assert_error(await self.ask("PUT", path, later), status, errcode)
        for method, where in (("POST", JSON), ("PUT", path)):
            self.assert_error(await self.ask(method, where, b"{}"), 400, "M_BAD_JSON")
            self.assert_error(await self.ask(method, where, b"{"), 400, "M_NOT_JSON")

        self.assertEqual((await self.anybody.request("GET", path))["data"], "kept")
        # All of this fits, however it is encoded.
        escaped = b'{"data": "' + b"\\u0041" * MAX_PAYLOAD + b'"}'
        self.assertEqual((await self.ask("POST", JSON, escaped)).status, 200)

    async def test_unknown_sessions_are_not_found(self) -> None:
        """Nobody finds a session by guessing, whatever is in the path."""
        for name in ("x", "%00", "%ff", "..", "a%2Fb", "x" * 5_000, "%F0%9F%92%A9"):
            answer = await self.ask("GET", f"{JSON}/{name}")
            self.assertIn(answer.status, (400, 404), name)
            self.assertIn(answer.json["errcode"], ("M_NOT_FOUND", "M_INVALID_PARAM"))

    async def test_browsers_do_not_show_payloads(self) -> None:
        """Nobody can lead users to a page of this server that a stranger has written."""
        path = f"{JSON}/{(await self.create('<h1>Sign in</h1>'))['id']}"
        for headers in SHOWN:
            self.assert_error(await self.ask("GET", path, **headers), 403, "M_FORBIDDEN")

        self.assertEqual((await self.ask("GET", path, **FETCHED)).status, 200)

    async def test_users_are_not_refused_for_their_neighbours(self) -> None:
        """Who has an access token is counted by user; who has none by network."""
        alice = await self.register("alice")
        for _ in range(MAX_OF_PARTY):
            await self.create()
        await self.assert_refused("M_LIMIT_EXCEEDED", self.create(), 429)
        flood = await self.ask("POST", TEXT, b"", Content_Type="text/plain")
        self.assert_error(flood, 429, "M_LIMIT_EXCEEDED")
        self.assertGreater(int(flood.headers["retry-after"]), 200)

        await self.create(client=alice)

        alice.token = "unknown"
        await self.assert_refused("M_UNKNOWN_TOKEN", self.create(client=alice), 401)


class TextFormTests(RendezvousTestCase):
    async def create(self, payload: bytes = b"") -> tuple[str, str]:
        """The path of a new session, and its entity tag."""
        made = await self.ask("POST", TEXT, payload, Content_Type="text/plain")
        self.assertEqual(made.status, 201, made.body)
        return made.json["url"].removeprefix(BASE), made.headers["etag"]

    async def write(self, path: str, tag: str, payload: bytes) -> Answer:
        """The response to a write."""
        return await self.ask("PUT", path, payload, Content_Type="text/plain", If_Match=tag)

    def assert_headers(self, answer: Answer) -> None:
        """The headers without which clients do not accept a response."""
        expires = parsedate_to_datetime(answer.headers["expires"])
        modified = parsedate_to_datetime(answer.headers["last-modified"])
        self.assertLess((expires - modified).total_seconds(), LIFE_MS / 1000 + 1)
        self.assertGreater((expires - modified).total_seconds(), LIFE_MS / 1000 - 10)
        self.assertRegex(answer.headers["etag"], '^"[0-9a-f]{32}"$')
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        self.assertEqual(answer.headers["access-control-expose-headers"], "ETag")

    async def test_two_devices_talk(self) -> None:
        """Each replaces what the other has written, and then the session is ended."""
        made = await self.ask("POST", TEXT, b"from A", Content_Type="text/plain; charset=UTF-8")
        self.assertEqual((made.status, made.json.keys()), (201, {"url"}))
        self.assertEqual(made.headers["content-type"], "application/json")
        self.assert_headers(made)
        self.assertTrue(made.json["url"].startswith(BASE + TEXT))
        path, tag = made.json["url"].removeprefix(BASE), made.headers["etag"]

        read = await self.ask("GET", path)
        self.assertEqual((read.status, read.body, read.headers["etag"]), (200, b"from A", tag))
        self.assertEqual(read.headers["content-type"], "text/plain")
        self.assert_headers(read)
        same = await self.ask("GET", path, If_None_Match=tag)
        self.assertEqual((same.status, same.body, same.headers["etag"]), (304, b"", tag))
        self.assert_headers(same)

        written = await self.write(path, tag, "från B".encode())
        self.assertEqual((written.status, written.body), (202, b""))
        self.assert_headers(written)
        new = await self.ask("GET", path, If_None_Match=tag)
        self.assertEqual((new.status, new.body.decode()), (200, "från B"))
        self.assertEqual(new.headers["etag"], written.headers["etag"])
        self.assertEqual(new.headers["expires"], made.headers["expires"])

        self.assertEqual((await self.ask("DELETE", path)).status, 204)
        self.assert_error(await self.ask("GET", path, If_None_Match=tag), 404, "M_NOT_FOUND")
        self.assert_error(await self.write(path, tag, b""), 404, "M_NOT_FOUND")
        self.assert_error(await self.ask("DELETE", path), 404, "M_NOT_FOUND")

    async def test_a_concurrent_write_is_refused(self) -> None:
        """A device writes after what it has read, and says what that was."""
        path, tag = await self.create()
        await self.write(path, tag, b"one")
        latest = (await self.ask("GET", path)).headers["etag"]

        for old in (tag, "*", "x", "", f"{tag}, {latest}"):
            answer = await self.write(path, old, b"other")
            self.assert_error(answer, 412, "M_CONCURRENT_WRITE")
        unconditional = await self.ask("PUT", path, b"other", Content_Type="text/plain")
        self.assert_error(unconditional, 400, "M_MISSING_PARAM")

        self.assertEqual((await self.ask("GET", path)).body, b"one")

    async def test_tags_that_proxies_have_changed_are_known(self) -> None:
        """Those that compress make a tag weak, or add to it."""
        path, tag = await self.create()
        bare = tag.strip('"')
        for seen in (f"W/{tag}", f'"{bare}-gzip"', bare, f'"other", {tag}'):
            self.assertEqual((await self.ask("GET", path, If_None_Match=seen)).status, 304, seen)

        self.assertEqual((await self.write(path, f'W/"{bare}-gzip"', b"one")).status, 202)

    async def test_hostile_payloads_are_refused(self) -> None:
        """None is stored, and none breaks the server."""
        path, tag = await self.create(b"kept")
        for payload, content_type, status, errcode in (
            (b"x" * (MAX_PAYLOAD + 1), "text/plain", 413, "M_TOO_LARGE"),
            (b"x" * 1_000_000, "text/plain", 413, "M_TOO_LARGE"),
            (b"\xff", "text/plain", 400, "M_INVALID_PARAM"),
            ("\ud800".encode("utf-8", "surrogatepass"), "text/plain", 400, "M_INVALID_PARAM"),
            (b"a\0b", "text/plain", 400, "M_INVALID_PARAM"),
            (b"<p>", "text/html", 400, "M_INVALID_PARAM"),
            (b"text", "text/plainer", 400, "M_INVALID_PARAM"),
        ):
            with self.subTest(payload[:20]):
                made = await self.ask("POST", TEXT, payload, Content_Type=content_type)
                self.assert_error(made, status, errcode)
                written = await self.ask(
                    "PUT", path, payload, Content_Type=content_type, If_Match=tag
                )
                self.assert_error(written, status, errcode)
        self.assert_error(await self.ask("POST", TEXT, b"text"), 400, "M_MISSING_PARAM")

        self.assertEqual((await self.ask("GET", path)).body, b"kept")

    async def test_browsers_do_not_show_payloads(self) -> None:
        """Nobody can lead users to a page of this server that a stranger has written."""
        path, _ = await self.create(b"<h1>Sign in</h1>")
        for headers in SHOWN:
            self.assert_error(await self.ask("GET", path, **headers), 403, "M_FORBIDDEN")

        self.assertEqual((await self.ask("GET", path, **FETCHED)).status, 200)

    async def test_web_clients_may_send_conditions(self) -> None:
        """A browser asks first, and does so for the methods of a session only."""
        path, _ = await self.create()
        for method in ("GET", "PUT"):
            asked = await self.ask("OPTIONS", path, Access_Control_Request_Method=method)
            self.assertEqual(asked.status, 204)
            self.assertEqual(
                asked.headers["access-control-allow-headers"],
                "X-Requested-With, Content-Type, Authorization, If-Match, If-None-Match",
            )
        for where, headers in (
            (path, {}),
            (path, {"Access-Control-Request-Method": "PATCH"}),
            ("/_matrix/client/v3/sync", {"Access-Control-Request-Method": "GET"}),
        ):
            asked = await self.ask("OPTIONS", where, **headers)
            self.assertNotIn("If-Match", asked.headers["access-control-allow-headers"])

    async def test_both_forms_have_the_same_sessions(self) -> None:
        """There is one place for payloads, and one bound."""
        path, tag = await self.create(b"one")
        other = path.replace(TEXT, JSON)

        read = await self.anybody.request("GET", other)

        self.assertEqual((read["data"], f'"{read["sequence_token"]}"'), ("one", tag))

    def test_ids_are_not_logged(self) -> None:
        """Who reads the log cannot read or write what devices send each other."""
        paths = [route for route in self.server.routes if "{rendezvous_id}" in route.path]

        self.assertEqual(len(paths), 6)
        self.assertTrue(all(route.hides_path for route in paths))

    async def test_clients_find_it(self) -> None:
        """Deployed clients offer QR codes where they find this flag."""
        versions = await self.anybody.request("GET", "/_matrix/client/versions")

        self.assertIs(versions["unstable_features"]["org.matrix.msc4108"], True)


class WithoutOAuthTests(RendezvousTestCase):
    settings: ClassVar[dict[str, Any]] = {"public_baseurl": BASE}

    async def test_there_are_no_sessions_without_the_oauth_api(self) -> None:
        """A device could not be signed in after it has found the other one."""
        for method, path in (("GET", JSON), ("POST", JSON), ("POST", TEXT), ("GET", f"{TEXT}/x")):
            self.assert_error(await self.ask(method, path), 404, "M_UNRECOGNIZED")
        versions = await self.anybody.request("GET", "/_matrix/client/versions")
        self.assertNotIn("org.matrix.msc4108", versions["unstable_features"])


class RateTests(RendezvousTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **RendezvousTestCase.settings,
        "rate_limits": {
            "oauth": {"per_second": 0.001, "burst": 2},
            "lookup": {"per_second": 0.001, "burst": 3},
        },
    }

    async def test_rates_are_limited(self) -> None:
        """Making sessions, and trying ids."""
        made = [await self.ask("POST", JSON, b'{"data": ""}') for _ in range(2)]
        made.append(await self.ask("POST", TEXT, b"", Content_Type="text/plain"))
        self.assertEqual([each.status for each in made], [200, 200, 429])

        tried = [await self.ask("GET", f"{each}/x") for each in (JSON, TEXT) * 2]
        self.assertEqual([each.status for each in tried], [404, 404, 404, 429])
