"""The authorisation code grant, from the request of a client to its tokens."""

from urllib.parse import parse_qs, urlsplit

import psycopg
from twisted.internet.defer import Deferred, DeferredList

from homeserver.accounts.oauth.authorization_codes import MAX_OF_USER
from homeserver.protocol.oauth.client_metadata import DEVICE_CODE
from homeserver.protocol.oauth.code_challenges import challenge_of
from tests.api.oauth.support import API, OAUTH, REDIRECT_URI, OAuthTestCase, outcome_of

SIGN_IN = "/_matrix/account/sign_in"
SIGN_UP = "/_matrix/account/sign_up"
DEVICE = "urn:matrix:client:device:ABCDEFGHIJ"


class AuthorizationCodeTests(OAuthTestCase):
    async def test_a_client_is_let_in(self) -> None:
        """A user signs in to a client on a page of the server, and it works as the user."""
        page = await self.browser.get(self.request())
        self.assertIn("My App", page.heading)
        self.assertIn("example.com", page.text)
        self.assertIn("@alice:example.org", page.text)
        self.assertIn("https://example.com/tos.html", page.text)
        self.assertEqual(page.headers["cache-control"], "no-store")
        policy = page.headers["content-security-policy"]
        self.assertIn("form-action 'self' https://app.example.com;", policy)
        self.assertIn("frame-ancestors 'none'", policy)

        outcome = outcome_of(await self.decide(page))
        self.assertEqual(outcome["state"], "a state")
        self.assertEqual(outcome["iss"], "http://matrix.example.org/")
        tokens = await self.exchange(outcome["code"])

        self.assertEqual(tokens["token_type"], "Bearer")
        self.assertEqual(tokens["expires_in"], 300)
        self.assertEqual(tokens["scope"], f"{API} {DEVICE}")
        self.anybody.token = tokens["access_token"]
        self.assertEqual(
            await self.anybody.get("/account/whoami"),
            {"user_id": self.alice.user_id, "is_guest": False, "device_id": "ABCDEFGHIJ"},
        )
        device = await self.anybody.get("/devices/ABCDEFGHIJ")
        self.assertEqual(device["display_name"], "My App")

    async def test_a_user_can_refuse(self) -> None:
        """The client learns that it was refused, and gets nothing."""
        page = await self.browser.get(self.request())

        for decision in ("deny", "", "other"):
            outcome = outcome_of(await self.decide(page, decision))
            self.assertEqual(outcome["error"], "access_denied")
            self.assertEqual(outcome["state"], "a state")
            self.assertNotIn("code", outcome)

    async def test_the_outcome_is_where_the_client_wants_it(self) -> None:
        """A web client has the code in the fragment, which its web server does not see."""
        page = await self.browser.get(self.request(response_mode="fragment"))
        location = (await self.decide(page)).location or ""
        self.assertTrue(location.startswith(f"{REDIRECT_URI}#code="), location)

        page = await self.browser.get(self.request(response_mode="query", state=None))
        location = (await self.decide(page)).location or ""
        self.assertTrue(location.startswith(f"{REDIRECT_URI}?code="), location)
        self.assertNotIn("state", outcome_of(await self.decide(page)))

    async def test_who_is_not_signed_in_signs_in_first(self) -> None:
        """The page for signing in returns to the request, which asks for that no more."""
        page = await self.new_browser().get(self.request(prompt="login"))

        parts = urlsplit(page.location or "")
        self.assertEqual(parts.path, SIGN_IN)
        target = parse_qs(parts.query)["target"][0]
        self.assertNotIn("prompt", target)
        page = await self.browser.get(target)
        self.assertIn("My App", page.heading)
        self.assertIn("code", outcome_of(await self.decide(page)))

    async def test_a_client_can_ask_for_a_new_sign_in_or_account(self) -> None:
        """A user who shares a browser can choose another account, or make one."""
        for prompt, path in (("login", SIGN_IN), ("create", SIGN_UP)):
            page = await self.browser.get(self.request(prompt=prompt))
            self.assertEqual(urlsplit(page.location or "").path, path)
        page = await self.browser.get(self.request(prompt="consent unknown"))
        self.assertEqual(page.status, 200)

    async def test_a_new_user_signs_up_on_the_way(self) -> None:
        """A client can offer registration, though it knows nothing of how it is done here."""
        browser = self.browser = self.new_browser()
        page = await browser.follow(await browser.get(self.request(prompt="create")))
        password = "a horse of bob"
        page = await browser.submit(page, user="bob", password=password, repeated_password=password)

        self.assertIn("@bob:example.org", page.text)
        tokens = await self.exchange(outcome_of(await self.decide(page))["code"])

        self.anybody.token = tokens["access_token"]
        self.assertEqual((await self.anybody.get("/account/whoami"))["user_id"], "@bob:example.org")

    async def test_a_user_sees_which_device_is_replaced(self) -> None:
        """A client that asks for the place of another one does not get it unnoticed."""
        await self.alice.put(f"/devices/{self.alice.device_id}", {"display_name": "My phone"})
        scope = f"{API} urn:matrix:client:device:{self.alice.device_id}"

        self.assertIn("My phone", (await self.browser.get(self.request(scope=scope))).text)
        self.assertNotIn("signed out", (await self.browser.get(self.request())).text)

    async def test_a_client_can_ask_for_no_page(self) -> None:
        """A hidden request of a client shows nothing, and permits nothing."""
        signed_in = await self.browser.get(self.request(prompt="none"))
        self.assertEqual(outcome_of(signed_in)["error"], "consent_required")
        stranger = await self.new_browser().get(self.request(prompt="none"))
        self.assertEqual(outcome_of(stranger)["error"], "login_required")

    async def test_unknown_clients_and_addresses_are_shown_to_the_user(self) -> None:
        """Nobody is sent to an address that belongs to no client."""
        for changes in (
            {"client_id": "unknown"},
            {"client_id": None},
            {"redirect_uri": None},
            {"redirect_uri": "https://evil.test/"},
            {"redirect_uri": f"{REDIRECT_URI}/../other"},
        ):
            page = await self.browser.get(self.request(**changes))
            self.assertEqual((page.status, page.location), (400, None), changes)
            self.assertIn("<h1>", page.text)

    async def test_other_errors_go_to_the_client(self) -> None:
        """A client can tell its developer, or its user, what is wrong."""
        for changes, error in (
            ({"scope": "openid"}, "invalid_scope"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge_method": "plain"}, "invalid_request"),
        ):
            page = await self.browser.get(self.request(**changes))
            self.assertEqual(outcome_of(page)["error"], error)
            self.assertEqual(outcome_of(page)["state"], "a state")

    async def test_the_server_is_no_open_redirector(self) -> None:
        """A link with an error does not send a stranger to the address of its author."""
        page = await self.new_browser().get(self.request(scope="openid"))

        self.assertEqual((page.status, page.location), (400, None))
        self.assertIn("My App cannot sign you in", page.heading)
        self.assertIn(f'href="{REDIRECT_URI}?error=invalid_scope&amp;', page.text)

    async def test_another_site_cannot_decide(self) -> None:
        """A form that this server has not made for this browser permits nothing."""
        page = await self.browser.get(self.request())
        action, fields = page.forms()[0]
        allow = {**fields, "decision": "allow"}

        foreign = await self.browser.post(
            action["action"], allow, **{"Sec-Fetch-Site": "cross-site"}
        )
        self.assertEqual(foreign.status, 403)
        without = await self.browser.post(action["action"], {"decision": "allow"})
        self.assertEqual(without.status, 403)
        wrong = await self.browser.post(action["action"], {**allow, "form_token": "x"})
        self.assertEqual(wrong.status, 403)
        signed_out = await self.new_browser().post(action["action"], allow)
        self.assertEqual(urlsplit(signed_out.location or "").path, SIGN_IN)

    async def test_what_a_client_says_of_itself_is_text(self) -> None:
        """A client cannot make the page look like another one."""
        name = "</h1><script>alert(1)</script>"
        self.client_id = (await self.register_client(client_name=name))["client_id"]

        page = await self.browser.get(self.request())

        self.assertNotIn("<script>", page.text)
        self.assertIn("&lt;script&gt;", page.text)

    async def test_a_native_client_listens_on_any_port(self) -> None:
        """A program on the user's machine gets the code on the port that was free."""
        self.client_id = (
            await self.register_client(
                application_type="native", redirect_uris=["http://localhost/callback"]
            )
        )["client_id"]
        uri = "http://localhost:40123/callback"

        page = await self.browser.get(self.request(redirect_uri=uri))
        self.assertIn("a program on this device", page.text)
        answer = await self.decide(page)

        self.assertTrue((answer.location or "").startswith(f"{uri}?code="))
        code = outcome_of(answer)["code"]
        await self.assert_error(
            "invalid_grant", self.exchange(code, redirect_uri="http://localhost/callback")
        )
        await self.exchange(code, redirect_uri=uri)


class CodeTests(OAuthTestCase):
    async def test_a_code_is_bound_to_its_request(self) -> None:
        """A code that was intercepted is worthless, and its owner can still use it."""
        code = (await self.authorize())["code"]
        other = (await self.register_client(client_name="Other"))["client_id"]

        for changes in (
            {"client_id": other},
            {"redirect_uri": "https://example.com/callback"},
            {"code_verifier": "w" * 43},
            {"code_verifier": challenge_of("v" * 43)},
        ):
            await self.assert_error("invalid_grant", self.exchange(code, **changes))
        await self.assert_error("invalid_grant", self.exchange("unknown"))
        await self.exchange(code)

    async def test_a_code_that_is_used_twice_ends_its_session(self) -> None:
        """Of two who have a code one is a thief; neither keeps what it gave."""
        code = (await self.authorize())["code"]
        self.anybody.token = (await self.exchange(code))["access_token"]
        await self.anybody.get("/account/whoami")

        await self.assert_error("invalid_grant", self.exchange(code))

        await self.assert_refused("M_UNKNOWN_TOKEN", self.anybody.get("/account/whoami"))
        self.assertEqual(len((await self.alice.get("/devices"))["devices"]), 1)
        await self.assert_error("invalid_grant", self.exchange(code))

    async def test_a_code_that_is_used_by_two_at_once_ends_its_session(self) -> None:
        """A thief who is fast does not keep the session either, and nothing is half done."""
        code = (await self.authorize())["code"]

        attempts = [Deferred.fromCoroutine(self.exchange(code)) for _ in range(5)]
        results = await DeferredList(attempts, consumeErrors=True)

        tokens = [result["access_token"] for succeeded, result in results if succeeded]
        self.assertEqual(len(tokens), 1)
        self.anybody.token = tokens[0]
        await self.assert_refused("M_UNKNOWN_TOKEN", self.anybody.get("/account/whoami"))
        self.anybody.token = None
        await self.exchange((await self.authorize())["code"])

    async def test_a_code_expires(self) -> None:
        """A code in the history of a browser opens nothing."""
        code = (await self.authorize())["code"]
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE oauth_authorization_codes SET expires_ms = 1")

        await self.assert_error("invalid_grant", self.exchange(code))

    async def test_what_was_begun_survives_a_restart(self) -> None:
        """An update of the server in the middle of a log-in is not noticed."""
        code = (await self.authorize())["code"]
        scope = f"{API} urn:matrix:client:device:TELEVISION"
        waiting = await self.form("device", client_id=self.client_id, scope=scope)

        await self.restart_server(self.alice)

        tokens = await self.exchange(code)
        await self.restart_server(self.alice)
        await self.refresh(tokens["refresh_token"])
        grant = {"grant_type": DEVICE_CODE, "device_code": waiting["device_code"]}
        attempt = self.form("token", client_id=self.client_id, **grant)
        await self.assert_error("authorization_pending", attempt)

    async def test_a_suspended_user_is_let_in(self) -> None:
        """A suspended user may read, and learns from the API what they may not do."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET is_suspended = true")

        phone = await self.log_in_client()

        await phone.get("/account/whoami")
        attempt = phone.put(f"/profile/{self.alice.user_id}/displayname", {"displayname": "A"})
        await self.assert_refused("M_USER_SUSPENDED", attempt, 403)

    async def test_codes_are_bounded(self) -> None:
        """A program with a stolen cookie cannot fill the database."""
        page = await self.browser.get(self.request())
        codes = [outcome_of(await self.decide(page))["code"] for _ in range(MAX_OF_USER + 2)]

        await self.assert_error("invalid_grant", self.exchange(codes[0]))
        await self.exchange(codes[-1])

    async def test_logging_out_everywhere_ends_codes(self) -> None:
        """A thief does not keep a way in."""
        code = (await self.authorize())["code"]

        await self.alice.post("/logout/all")

        await self.assert_error("invalid_grant", self.exchange(code))

    async def test_a_locked_or_deactivated_user_gets_no_tokens(self) -> None:
        """A user who was locked out does not come in by a page that was open already."""
        code = (await self.authorize())["code"]
        for column in ("is_locked", "is_deactivated"):
            with psycopg.connect(self.dsn) as connection:
                connection.execute(f"UPDATE users SET {column} = true")
            await self.assert_error("invalid_grant", self.exchange(code))
            page = await self.browser.get(self.request())
            self.assertEqual(urlsplit(page.location or "").path, SIGN_IN)
            with psycopg.connect(self.dsn) as connection:
                connection.execute(f"UPDATE users SET {column} = false")

        await self.exchange(code)

    async def test_clients_may_use_the_names_of_the_proposal(self) -> None:
        """Clients of last year work, and get the scope in their own words."""
        prefix = "urn:matrix:org.matrix.msc2967.client"
        outcome = await self.authorize(scope=f"openid {prefix}:api:* {prefix}:device:OLD")

        tokens = await self.exchange(outcome["code"])

        self.assertEqual(tokens["scope"], f"{prefix}:api:* {prefix}:device:OLD")


class RequestsTests(OAuthTestCase):
    async def test_malformed_token_requests_are_refused(self) -> None:
        """Each has the error of OAuth, and none is an error of the server."""
        for body in (
            b"",
            b"\xff",
            b"grant_type=%ff",
            b"grant_type=%00",
            b"grant_type=refresh_token",
            b"grant_type=refresh_token&grant_type=refresh_token",
            b"&" * 1_000,
            b'{"grant_type": "refresh_token"}',
        ):
            for endpoint in ("token", "revoke", "device"):
                attempt = self.anybody.request("POST", f"{OAUTH}/{endpoint}", body)
                await self.assert_error("invalid_request", attempt)
        await self.assert_error(
            "unsupported_grant_type", self.form("token", grant_type="password", client_id="x")
        )
        await self.assert_error(
            "invalid_client", self.form("token", grant_type="refresh_token", client_id="x"), 401
        )
