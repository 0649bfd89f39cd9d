"""Browser sessions: how they begin, who has one, and what ends them."""

from urllib.parse import parse_qs, urlsplit

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from homeserver.accounts.browser_sessions.browser_sessions import (
    COOKIE,
    FORM_TOKEN,
    LIFETIME_MS,
    MAX_OF_USER,
    BrowserSession,
    BrowserSessions,
    Cookies,
    check_target,
    sign_in_location,
)
from homeserver.accounts.browser_sessions.cross_signing_reset import ALLOWED_MS, CrossSigningReset
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.registration.administration import set_password
from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.storage.accounts.users import set_locked
from tests.accounts.support import ALICE, BOB, AccountsTestCase

BASE = "https://matrix.example.org"
OWN_PATHS = ("/_matrix/account", "/_matrix/account?action=x", "/_matrix/oauth2/authorize?a=b&c=d")


class Browser:
    """A browser with one cookie; it follows what `Set-Cookie` says."""

    def __init__(self, cookie: str | None = None) -> None:
        self.cookie = cookie

    def header(self, name: bytes) -> str | None:
        assert name == b"Cookie"
        return self.cookie

    def keep(self, set_cookie: str) -> None:
        self.cookie = set_cookie.partition(";")[0]


class BrowserSessionTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        self.browser = Browser()
        self.browser_sessions = BrowserSessions(self.db, self.clock, BASE)

    async def sign_in(self, user_id: str = ALICE, browser: Browser | None = None) -> Browser:
        browser = browser or self.browser
        browser.keep(await self.browser_sessions.open(user_id, browser))
        return browser

    async def current(self, browser: Browser | None = None) -> BrowserSession | None:
        return await self.browser_sessions.find(browser or self.browser)

    async def test_a_browser_that_signed_in_is_known(self) -> None:
        """A user who is signed in reaches the pages of the account."""
        self.assertIsNone(await self.current())

        await self.sign_in()

        session = await self.current()
        assert session is not None
        self.assertEqual((session.user_id, session.authenticated_ms), (ALICE, 1_700_000_000_000))

    async def test_a_made_up_cookie_is_nobody(self) -> None:
        """A stranger gets no session by guessing, and no error page either."""
        await self.sign_in()
        name = f"__Secure-{COOKIE}"

        for cookie in (
            "",
            "=",
            name,
            f"{name}=",
            f"{name}=x",
            f"{name}={'x' * 10_000}",
            "\xff=\xff",
        ):
            self.assertIsNone(await self.current(Browser(cookie)), cookie[:50])

    async def test_each_sign_in_makes_a_new_secret_and_ends_the_former(self) -> None:
        """Who prepared a browser, or copied its cookie before, has nothing of the new session."""
        await self.sign_in()
        former = Browser(self.browser.cookie)

        await self.sign_in()

        self.assertNotEqual(self.browser.cookie, former.cookie)
        self.assertIsNone(await self.current(former))
        self.assertIsNotNone(await self.current())

    async def test_two_cookies_of_one_name_are_none(self) -> None:
        """Another host of the domain cannot put its own session before that of the user."""
        await self.sign_in()
        forged = Browser(f"{self.browser.cookie}; __Secure-{COOKIE}=forged")

        self.assertIsNone(await self.current(forged))

    async def test_signing_out_ends_the_session(self) -> None:
        """The next user of a shared computer is not signed in."""
        await self.sign_in()
        before = Browser(self.browser.cookie)

        removed = await self.browser_sessions.end(self.browser)

        self.assertIn("Max-Age=0", removed)
        self.assertIsNone(await self.current(before))

    async def test_a_session_ends_after_two_weeks(self) -> None:
        """A forgotten browser does not stay signed in."""
        await self.sign_in()

        self.clock.advance(LIFETIME_MS / 1000)

        self.assertIsNone(await self.current())
        await ExpiredRowCleanup(self.db, self.clock).clean_up()
        self.assertEqual(self.count("browser_sessions"), 0)

    async def test_a_form_needs_the_token_of_its_session(self) -> None:
        """A page of another site, or of another session, changes nothing."""
        await self.sign_in()
        session = await self.current()
        other = await self.current(await self.sign_in(browser=Browser()))
        assert session is not None
        assert other is not None

        self.browser_sessions.check_form(session, {FORM_TOKEN: session.form_token})
        for form in ({}, {FORM_TOKEN: ""}, {FORM_TOKEN: other.form_token}, {FORM_TOKEN: "é"}):
            with self.assertRaises(Forbidden):
                self.browser_sessions.check_form(session, form)

    async def test_a_user_has_a_bounded_number_of_sessions(self) -> None:
        """A program that signs in without end fills no table; the latest sessions stay."""
        first = await self.sign_in(browser=Browser())
        self.clock.advance(1)
        for _ in range(MAX_OF_USER):
            last = await self.sign_in(browser=Browser())

        self.assertIsNone(await self.current(first))
        self.assertIsNotNone(await self.current(last))
        self.assertEqual(self.count("browser_sessions"), MAX_OF_USER)

    async def test_who_changes_the_password_has_to_sign_in_again(self) -> None:
        """A stranger who is signed in with the old password is not any more."""
        change = PasswordChange(self.db, self.passwords, self.sessions, allowed=True)
        await self.sign_in()
        await change.apply(ALICE, "another horse", logout_devices=False)
        self.assertIsNone(await self.current())

        await self.sign_in()
        await set_password(self.db, self.passwords, ALICE, "a third horse")
        self.assertIsNone(await self.current())

    async def test_logging_out_everywhere_ends_the_sessions_of_browsers(self) -> None:
        """A user who lost a computer ends all that was open there."""
        await self.sign_in()

        await self.sessions.close_all(ALICE)

        self.assertIsNone(await self.current())

    async def test_a_deactivated_user_has_no_session_and_gets_none(self) -> None:
        """An account that is gone has no pages."""
        await self.sign_in()

        await self.deactivation.deactivate(ALICE, erase=False)

        self.assertIsNone(await self.current())
        self.assertEqual(self.count("browser_sessions"), 0)
        await self.refused(self.browser_sessions.open(ALICE, Browser()), "M_FORBIDDEN")

    async def test_a_locked_user_has_no_session_until_the_account_is_unlocked(self) -> None:
        """A lock holds for web pages as it does for clients."""
        await self.sign_in()

        await self.db.run(set_locked, ALICE, True)
        self.assertIsNone(await self.current())
        await self.refused(self.browser_sessions.open(ALICE, Browser()), "M_USER_LOCKED")

        await self.db.run(set_locked, ALICE, False)
        self.assertIsNotNone(await self.current())

    async def test_guests_and_users_of_bridges_have_no_session(self) -> None:
        """Their accounts have no person who could sign in."""
        guest = await self.registration.register_guest(None)
        await self.user("bob")
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET appservice = 'irc' WHERE user_id = %s", (BOB,))

        for user_id in (guest.user_id, BOB, "@nobody:example.org"):
            await self.refused(self.browser_sessions.open(user_id, Browser()), "M_FORBIDDEN")

    async def test_a_reset_of_keys_is_allowed_once_for_ten_minutes(self) -> None:
        """A stranger who finds the client open an hour later cannot replace the keys."""
        reset = CrossSigningReset(self.db, self.clock)
        self.assertFalse(await reset.is_allowed(ALICE))

        await reset.allow(ALICE)
        self.assertTrue(await reset.is_allowed(ALICE))
        self.assertFalse(await reset.is_allowed(BOB))
        await reset.end(ALICE)
        self.assertFalse(await reset.is_allowed(ALICE))

        await reset.allow(ALICE)
        self.clock.advance(ALLOWED_MS / 1000)
        self.assertFalse(await reset.is_allowed(ALICE))
        await ExpiredRowCleanup(self.db, self.clock).clean_up()
        self.assertEqual(self.count("cross_signing_resets"), 0)

    def count(self, table: str) -> int:
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


def test_a_cookie_is_hidden_from_scripts_other_sites_and_plain_connections() -> None:
    """Nothing but the pages of this server gets the secret."""
    name, *attributes = Cookies(BASE).set(COOKIE, "value").split("; ")

    assert name == "__Secure-homeserver_session=value"
    assert set(attributes) == {"Path=/_matrix/", "HttpOnly", "SameSite=Lax", "Secure"}


def test_a_cookie_works_without_tls_and_below_another_path() -> None:
    """Pages work on a server that is being tried out, and behind a proxy with a path of its own."""
    cookie = Cookies("http://localhost:8008/chat/").set(COOKIE, "value")

    assert cookie == "homeserver_session=value; Path=/chat/_matrix/; HttpOnly; SameSite=Lax"


def test_pages_return_to_pages_of_this_server() -> None:
    """A user who has signed in continues where they were."""
    for target in OWN_PATHS:
        assert check_target(target) == target
        location = urlsplit(sign_in_location(target, create=True))
        assert location.path == "/_matrix/account/sign_up"
        assert parse_qs(location.query) == {"target": [target]}


def test_pages_return_to_no_other_place() -> None:
    """A link to a page for signing in leads nobody to the site of an attacker."""
    for target in (
        "",
        "/",
        "//evil.example/_matrix/account",
        "https://evil.example/_matrix/account",
        "javascript:alert(1)",
        "/_matrix/account\\evil",
        "/_matrix/accounts",
        "/_matrix/account@evil.example",
        "/_matrix/client/v3/sync",
        "/_matrix/oauth2/../client/v3/sync",
        "/_matrix/oauth2/%2E./client",
        "/_matrix/account?a\r\nSet-Cookie: b",
        "/_matrix/account?a b",
        "/_matrix/account?é",
        "/_matrix/account#fragment",
        "/_matrix/account?" + "a" * 10_000,
    ):
        try:
            check_target(target)
        except InvalidParam:
            continue
        raise AssertionError(target[:80])


@given(st.text(max_size=30), st.sampled_from(OWN_PATHS))
def test_a_target_stays_on_this_server_as_browsers_read_it(text: str, path: str) -> None:
    """Whatever is added to a path, what is accepted has no other host, and is a plain header."""
    for target in (text, path + text, text + path):
        try:
            check_target(target)
        except InvalidParam:
            continue
        split = urlsplit(target)
        assert (split.scheme, split.netloc) == ("", "")
        assert target.startswith(("/_matrix/oauth2/", "/_matrix/account"))
        assert target.isascii()
        assert target.isprintable()
