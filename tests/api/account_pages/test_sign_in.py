"""The page for signing in."""

from typing import Any, ClassVar
from unittest.mock import AsyncMock, Mock
from urllib.parse import quote

import msgspec
import psycopg
from twisted.trial.unittest import TestCase

from homeserver.accounts.browser_sessions.anonymous_forms import AnonymousForms
from homeserver.accounts.browser_sessions.browser_sessions import Cookies, sign_in_location
from homeserver.client_api.account_pages.sign_in import SignInApi, SignInQuery
from homeserver.web.html import Pages
from tests.api.account_pages.support import BASE, PagesTestCase

ACCOUNT = "/_matrix/account"
SIGN_IN = "/_matrix/account/sign_in"
TARGET = "/_matrix/oauth2/authorize?client_id=x&redirect_uri=https%3A%2F%2Fclient.example%2F"
PASSWORD = "the password of alice"
WRONG = "Invalid username or password."


class SignInTests(PagesTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def test_user_who_signs_in_returns_to_where_they_came_from(self) -> None:
        """A client that sent its user here gets them back."""
        page = await self.browser.get(sign_in_location(TARGET))
        form, fields = page.forms()[0]

        entered = {"user": "alice", "password": PASSWORD}
        done = await self.browser.post(sign_in_location(TARGET), {**fields, **entered})

        self.assertNotIn("action", form)
        self.assertEqual((done.status, done.location), (303, TARGET))
        account = await self.browser.get(ACCOUNT)
        self.assertIn("@alice:example.org", account.text)

    async def test_user_is_named_as_in_any_log_in(self) -> None:
        """A user types what they know of their name."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO third_party_ids (medium, address, user_id, validated_ms, added_ms)"
                " VALUES ('email', 'alice@example.com', %s, 0, 0)",
                (self.alice.user_id,),
            )
        for name in ("alice", " Alice ", "@alice:example.org", "Alice@example.com"):
            browser = self.new_browser()
            await self.sign_in("alice", browser, as_name=name)
            self.assertIn(self.alice.user_id, (await browser.get(ACCOUNT)).text, name)

    async def test_wrong_password_and_unknown_user_look_alike(self) -> None:
        """A stranger does not learn who has an account, and a user may try again."""
        for name in ("alice", "nobody", "nobody@example.com"):
            page = await self.browser.get(SIGN_IN)
            page = await self.browser.submit(page, user=name, password="wrong")

            self.assertEqual(page.status, 403)
            self.assertIn(WRONG, page.text)
            self.assertEqual(page.forms()[0][1]["user"], name)

        page = await self.browser.submit(page, user="alice", password=PASSWORD)
        self.assertEqual((page.path, page.status), (ACCOUNT, 200))

    async def test_another_site_cannot_sign_a_browser_in(self) -> None:
        """A user does not write into the account of an attacker (log-in CSRF)."""
        theirs = self.new_browser()
        stolen = (await theirs.get(SIGN_IN)).forms()[0][1]
        mine = (await self.browser.get(SIGN_IN)).forms()[0][1]
        entered = {"user": "alice", "password": PASSWORD}

        refused = [
            await self.browser.post(SIGN_IN, entered),
            await self.browser.post(SIGN_IN, {**stolen, **entered}),
            await self.new_browser().post(SIGN_IN, {**mine, **entered}),
            await self.browser.post(
                SIGN_IN, {**mine, **entered}, **{"Sec-Fetch-Site": "same-site"}
            ),
            await self.browser.post(
                SIGN_IN, {**mine, **entered}, **{"Sec-Fetch-Site": "cross-site"}
            ),
        ]
        accepted = await self.browser.post(SIGN_IN, {**mine, **entered})

        self.assertEqual([page.status for page in refused], [403] * 5)
        self.assertTrue(all("homeserver_session" not in str(page.headers) for page in refused))
        self.assertEqual(accepted.status, 303)

    async def test_a_second_tab_does_not_break_the_first(self) -> None:
        """A user with two tabs may use either."""
        first = await self.browser.get(SIGN_IN)
        await self.browser.get(SIGN_IN)

        page = await self.browser.submit(first, user="alice", password=PASSWORD)

        self.assertEqual(page.path, ACCOUNT)

    async def test_page_returns_to_no_other_place(self) -> None:
        """A link to this server does not lead users to another site (open redirect)."""
        fields = (await self.browser.get(SIGN_IN)).forms()[0][1]
        entered = {"user": "alice", "password": PASSWORD}
        for target in ("https://evil.example/", "//evil.example", "/_matrix/client/v3/sync", ""):
            address = f"{SIGN_IN}?target={quote(target, safe='')}"
            self.assertEqual((await self.browser.get(address)).status, 400, target)
            page = await self.browser.post(address, {**fields, **entered})
            self.assertEqual((page.status, page.location), (400, None), target)

    async def test_page_shows_what_strangers_put_into_a_link_as_text_only(self) -> None:
        """No script comes into the page by a link, nor from what was typed."""
        page = await self.browser.get(SIGN_IN)
        page = await self.browser.submit(page, user='"><script>x</script>', password="wrong")

        self.assertNotIn("<script", page.text)
        self.assertIn("&lt;script&gt;", page.text)
        self.assertIn("form-action 'self';", page.headers["content-security-policy"])
        self.assertIn("frame-ancestors 'none'", page.headers["content-security-policy"])
        self.assertEqual(page.headers["cache-control"], "no-store")
        self.assertEqual(page.headers["referrer-policy"], "no-referrer")

    async def test_a_locked_user_reads_so_after_the_password(self) -> None:
        """The user knows whom to ask; a stranger learns nothing."""
        await self.change_user("is_locked = true")

        page = await self.sign_in("alice", self.browser)
        self.assertEqual(page.status, 401)
        self.assertIn("This account has been locked.", page.text)
        page = await self.sign_in("alice", self.browser, password="wrong")
        self.assertIn(WRONG, page.text)

    async def test_accounts_without_a_person_cannot_sign_in(self) -> None:
        """Users of bridges, guests and deactivated users have no pages."""
        for change in ("appservice = 'irc'", "is_guest = true", "is_deactivated = true"):
            await self.change_user(change)
            page = await self.sign_in("alice", self.new_browser())
            self.assertEqual(page.status, 403, change)

    async def change_user(self, change: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"UPDATE users SET {change}")


class Provider(msgspec.Struct):
    """An identity provider."""

    id: str
    name: str


class ProviderTests(TestCase):
    async def test_each_provider_has_a_button_that_returns_to_the_target(self) -> None:
        """Users of a company sign in with what they have there."""
        sessions = Mock(cookies=Cookies(f"{BASE}/chat"), find=AsyncMock(return_value=None))
        forms = AnonymousForms(sessions.cookies)
        api = SignInApi(
            Mock(with_password=False),
            sessions,
            forms,
            Pages("example.org"),
            [Provider("a/b?", "Example <b>Inc</b>")],
            can_sign_up=False,
            can_reset=False,
        )

        request = Mock(header=lambda name: None)
        shown = await api.show_sign_in(SignInQuery(TARGET), request)

        text = str(shown.body)
        address = f"/chat/_matrix/sso/redirect/a%2Fb%3F?return_to={quote(TARGET, safe='')}"
        self.assertIn(f'href="{address}"', text)
        self.assertIn("Continue with Example &lt;b&gt;Inc", text)
        self.assertNotIn("<form", text)


class GuessingTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **PagesTestCase.settings,
        "rate_limits": {"password": {"per_second": 0.001, "burst": 2}},
    }

    async def test_guessing_a_password_is_slow(self) -> None:
        """An attacker with many addresses has few tries for one account, and has to wait."""
        page = await self.browser.get(SIGN_IN)
        for _ in range(3):
            page = await self.browser.submit(page, user="alice", password="wrong")

        self.assertEqual(page.status, 429)
        self.assertIn("Too many attempts. Try again in ", page.text)
        self.assertIn("retry-after", page.headers)


class WithoutPasswordsTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "public_baseurl": f"{BASE}/chat",
        "oauth": {"enabled": True},
        "passwords": {"enabled": False, "hash_cost": "lowest"},
    }

    async def test_page_has_no_password_form_without_passwords(self) -> None:
        """A form that cannot work is not shown, and does nothing."""
        page = await self.browser.get(SIGN_IN)
        self.assertEqual(page.forms(), [])

        page = await self.browser.post(SIGN_IN, {"user": "alice", "password": "x"})
        self.assertEqual(page.status, 403)

    async def test_pages_stay_below_the_path_of_the_server(self) -> None:
        """Behind a proxy with a path of its own, redirects lead to that path."""
        page = await self.browser.get(ACCOUNT)

        self.assertEqual(page.location, "/chat" + sign_in_location(ACCOUNT))
