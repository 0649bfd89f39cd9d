"""Log-in by single sign-on, from the redirect to the login token."""

from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.single_sign_on.support import CLIENT_URL, SingleSignOnTestCase, error_of


class LoginTests(SingleSignOnTestCase):
    async def test_clients_see_the_providers(self) -> None:
        """A client shows a button for each provider, and an old client knows the flow of CAS."""
        flows = (await self.anybody.get("/login"))["flows"]

        sso = {
            "type": "m.login.sso",
            "identity_providers": [
                {"id": "openid", "name": "Example & Co", "brand": "example"},
                {"id": "cas", "name": "The campus"},
            ],
        }
        self.assertIn(sso, flows)
        self.assertIn({"type": "m.login.cas"}, flows)
        self.assertIn({"type": "m.login.token", "get_login_token": True}, flows)

    async def test_a_new_user_is_registered_and_confirms_the_client(self) -> None:
        """Somebody who signs in for the first time gets an account, and then a login token."""
        self.openid.user = {"sub": "1", "preferred_username": "Alice", "name": "Alice A."}

        page = await self.sign_in()

        self.assertIn("@alice:example.org", page.text)
        self.assertIn("https://client.example", page.text)
        url = urlsplit(page.link("Continue to"))
        self.assertEqual(url.fragment, "welcome")
        self.assertEqual(len(parse_qs(url.query)["loginToken"]), 1)
        self.assertNotIn("old", url.query)
        alice = await self.actor_by(page)
        self.assertEqual(alice.user_id, "@alice:example.org")
        profile = await alice.get(f"/profile/{alice.user_id}")
        self.assertEqual(profile["displayname"], "Alice A.")

    async def test_the_same_identity_has_the_same_account(self) -> None:
        """A user may change their name at the provider, and keeps their account."""
        self.openid.user = {"sub": "1", "preferred_username": "alice"}
        await self.sign_in()
        self.openid.user = {"sub": "1", "preferred_username": "bob"}

        alice = await self.actor_by(await self.sign_in())

        self.assertEqual(alice.user_id, "@alice:example.org")

    async def test_cas_users_log_in(self) -> None:
        """A user name of CAS is mapped to the characters of user ids."""
        user = await self.actor_by(await self.sign_in("cas"))

        self.assertEqual(user.user_id, "@cas_user=21:example.org")

    async def test_without_a_choice_the_user_chooses_a_provider(self) -> None:
        """A client that knows no providers sends users to a page with all of them."""
        url = self.redirect_url("openid").replace("/redirect/openid", "/redirect")
        page = await self.browser.get(url)

        self.assertIn("Continue with Example &amp; Co", page.text)
        ended = await self.browser.follow(page.link("Continue with The campus"), to="https:")
        self.assertIn("@cas_user=21:example.org", ended.text)

    async def test_the_old_redirect_leads_to_cas(self) -> None:
        """A client that knows `m.login.cas` alone still works."""
        url = self.redirect_url("openid").replace("/sso/redirect/openid", "/cas/redirect")
        page = await self.browser.get(url)

        self.assertEqual(page.status, 302)
        self.assertTrue(page.location.startswith(f"{self.cas.url}/cas/login?service="))

    async def test_dangerous_addresses_are_refused(self) -> None:
        """No login token goes to a script, or to an address that is read in two ways."""
        for url in (
            "javascript:alert(1)//",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "https:evil.example",
            "https:\\\\evil.example",
            "https://app.element.io@evil.example/",
            "https://evil.example/\r\nSet-Cookie: a=b",
            "/relative",
            "https://client.example/" + "x" * 2000,
            "",
        ):
            page = await self.browser.get(self.redirect_url("openid", url))
            self.assertEqual((page.status, error_of(page)), (400, "M_INVALID_PARAM"), url)

    async def test_a_native_client_may_have_its_own_scheme(self) -> None:
        """The page names the scheme, since nobody can know the application."""
        page = await self.sign_in("cas", to="io.element.desktop:/callback?x=1")

        self.assertIn("io.element.desktop:", page.text)
        self.assertTrue(
            page.link("Continue to").startswith("io.element.desktop:/callback?x=1&loginToken=")
        )

    async def test_an_unknown_provider_has_an_error_page(self) -> None:
        """A user who follows an old link sees why it leads nowhere."""
        page = await self.browser.get(self.redirect_url("nobody"))

        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))

    async def test_locked_and_deactivated_users_do_not_log_in(self) -> None:
        """The provider knows nothing of the state of an account."""
        await self.sign_in("cas")
        self._execute("UPDATE users SET is_locked = true")
        page = await self.sign_in("cas")
        self.assertEqual((page.status, error_of(page)), (401, "M_USER_LOCKED"))

        self._execute("UPDATE users SET is_locked = false, is_deactivated = true")
        page = await self.sign_in("cas")
        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement)


class TrustedClientTests(SingleSignOnTestCase):
    single_sign_on = {"trusted_clients": ["https://client.example/app"]}  # noqa: RUF012
    kinds = ("cas",)

    async def test_a_trusted_client_needs_no_confirmation(self) -> None:
        """Users of the organisation's own client are not asked every time."""
        page = await self.sign_in("cas")

        self.assertEqual(page.status, 302)
        self.assertTrue(
            page.location.startswith("https://client.example/app?room=%23a&loginToken=")
        )
        self.assertEqual(self.browser.cookies, {})
        await self.log_in_by(page)

    async def test_other_addresses_of_its_origin_need_one(self) -> None:
        """Another application on the same host is not the trusted one."""
        for url in ("https://client.example/apple", "https://client.example.evil/app"):
            page = await self.sign_in("cas", to=url)
            self.assertEqual(page.status, 200, url)

    async def test_a_single_provider_needs_no_choice(self) -> None:
        """Clients send users to the server, and it sends them to its provider."""
        url = self.redirect_url("cas").replace("/redirect/cas", "/redirect")
        page = await self.browser.follow(url, to=CLIENT_URL[:20])

        self.assertEqual(page.status, 302)


class ForeignBrowserTests(SingleSignOnTestCase):
    async def test_only_the_browser_that_began_can_complete(self) -> None:
        """An attacker cannot have a user complete a sign-in of the attacker (CSRF)."""
        begun = await self.browser.get(self.redirect_url())
        back = await self.browser.get(begun.location)
        victim = self.new_browser()

        page = await victim.get(back.location)

        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))
        self.assertNotIn("/token", self.openid.seen)

    async def test_a_sign_in_outlives_a_restart_of_the_server(self) -> None:
        """The browser has all of it, and the key of the cookies stays the same."""
        begun = await self.browser.get(self.redirect_url("cas"))
        await self.restart_server()

        page = await self.browser.follow(begun.location, to="https:")

        self.assertIn("@cas_user=21:example.org", page.text)

    async def test_a_sign_in_completes_once(self) -> None:
        """The same callback again gives no second login token."""
        begun = await self.browser.get(self.redirect_url("cas"))
        back = await self.browser.get(begun.location)
        first = await self.browser.get(back.location)
        again = await self.browser.get(back.location)

        self.assertEqual(first.status, 200)
        self.assertEqual((again.status, error_of(again)), (404, "M_NOT_FOUND"))

    async def test_two_sign_ins_in_one_browser_do_not_disturb_each_other(self) -> None:
        """Two tabs, two clients."""
        first = await self.browser.get(self.redirect_url("cas"))
        while len(self.browser.cookies) < 2:  # until it has another slot
            second = await self.browser.get(self.redirect_url("cas", "https://other.example/"))
            if len(self.browser.cookies) == 1:
                first = await self.browser.get(self.redirect_url("cas"))

        page = await self.browser.follow(first.location, to="https://client.example")
        self.assertIn("https://client.example", page.text)
        page = await self.browser.follow(second.location, to="https://other.example")
        self.assertIn("https://other.example", page.text)

    async def test_a_browser_stores_few_sign_ins(self) -> None:
        """Whatever a web page has it begin, its requests stay small enough for the server."""
        url = "https://client.example/" + "x" * 1_370
        for _ in range(60):
            await self.browser.get(self.redirect_url("cas", url))

        self.assertLessEqual(len(self.browser.cookies), 6)
        page = await self.sign_in("cas", to=url)
        self.assertIn("@cas_user=21:example.org", page.text)

    async def test_a_callback_with_repeated_parameters_is_refused(self) -> None:
        """What two readers read differently is not from a provider."""
        begun = await self.browser.get(self.redirect_url("cas"))
        back = await self.browser.get(begun.location)

        page = await self.browser.get(back.location + "&ticket=other")

        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))
