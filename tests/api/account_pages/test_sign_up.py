"""The pages for signing up."""

from typing import Any, ClassVar
from unittest.mock import patch

import psycopg

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions, sign_in_location
from homeserver.protocol.errors import Unavailable
from tests.api.account_pages.support import PagesTestCase
from tests.api.accounts.test_third_party_ids import MailTestCase

ACCOUNT = "/_matrix/account"
SIGN_UP = "/_matrix/account/sign_up"
TARGET = "/_matrix/oauth2/authorize?client_id=x"
NEW = {"user": "Alice", "password": "a new horse", "repeated_password": "a new horse"}
TERMS = [{"id": "privacy", "version": "1", "name": "Privacy", "url": "https://example.org/privacy"}]


class SignUpTestCase(PagesTestCase):
    def users(self) -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute("SELECT user_id FROM users").fetchall()


class SignUpTests(SignUpTestCase):
    async def test_user_signs_up_and_returns_to_where_they_came_from(self) -> None:
        """A client that wants a new account for its user gets them back, signed in."""
        address = sign_in_location(TARGET, create=True)
        fields = (await self.browser.get(address)).forms()[0][1]

        done = await self.browser.post(address, {**fields, **NEW})

        self.assertEqual((done.status, done.location), (303, TARGET))
        self.assertIn("@alice:example.org", (await self.browser.get(ACCOUNT)).text)
        self.assertEqual(self.users(), [("@alice:example.org",)])
        with psycopg.connect(self.dsn) as connection:
            self.assertEqual(connection.execute("SELECT * FROM devices").fetchall(), [])

    async def test_pages_for_signing_in_and_up_lead_to_each_other(self) -> None:
        """A user who took the wrong door loses nothing."""
        page = await self.browser.get(sign_in_location(TARGET))
        self.assertIn(sign_in_location(TARGET, create=True).replace("&", "&amp;"), page.text)
        page = await self.browser.get(sign_in_location(TARGET, create=True))
        self.assertIn(sign_in_location(TARGET).replace("&", "&amp;"), page.text)

    async def test_what_is_wrong_is_said_and_no_account_is_made(self) -> None:
        """A user corrects a name or a password, with the rules of all registrations."""
        await self.register("bob")
        page = await self.browser.get(SIGN_UP)
        for fields, text in (
            ({"user": "bob"}, "taken"),
            ({"user": ""}, ""),
            ({"user": "<script>"}, ""),
            ({"user": "x" * 300}, ""),
            ({"password": "short", "repeated_password": "short"}, "at least 8 characters"),
            ({"password": "", "repeated_password": ""}, "at least 8 characters"),
            ({"repeated_password": "another horse"}, "are not the same"),
        ):
            refused = await self.browser.submit(page, **{**NEW, **fields})
            self.assertEqual(refused.status, 400, fields)
            self.assertIn('class="wrong"', refused.text)
            self.assertIn(text, refused.text)
            self.assertNotIn("<script", refused.text)
        self.assertEqual(self.users(), [("@bob:example.org",)])

    async def test_another_site_cannot_sign_a_browser_up(self) -> None:
        """A user does not get an account whose password an attacker knows."""
        stolen = (await self.new_browser().get(SIGN_UP)).forms()[0][1]
        await self.browser.get(SIGN_UP)

        for fields in ({}, stolen):
            page = await self.browser.post(SIGN_UP, {**fields, **NEW})
            self.assertEqual(page.status, 403)
        self.assertEqual(self.users(), [])

    async def test_a_made_up_session_makes_no_account(self) -> None:
        """Nobody gets an account without a name and a password."""
        fields = (await self.browser.get(SIGN_UP)).forms()[0][1]
        for stage in ("m.login.dummy", "m.login.terms", "x", ""):
            more = {"session": "made up", "stage": stage}
            page = await self.browser.post(SIGN_UP, {**fields, **more})
            self.assertEqual(page.status, 404, stage)
        self.assertEqual(self.users(), [])


class RequiredStagesTests(SignUpTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **PagesTestCase.settings,
        "registration": {"enabled": True, "token_required": True, "terms": TERMS},
    }

    async def test_user_completes_all_that_is_required(self) -> None:
        """A registration token is used once, and the terms are accepted, as over the API."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO registration_tokens (token, uses_allowed) VALUES ('guest', 1)"
            )
        page = await self.browser.get(SIGN_UP)
        page = await self.browser.submit(page, **NEW)
        self.assertIn("registration token", page.heading)
        page = await self.browser.submit(page, token="wrong")
        self.assertIn("not valid", page.text)
        terms = await self.browser.submit(page, token="guest")
        self.assertEqual((terms.heading, self.users()), ("The terms of example.org", []))

        done = await self.browser.submit(terms)

        self.assertEqual((done.path, done.status), (ACCOUNT, 200))
        self.assertEqual(self.users(), [("@alice:example.org",)])
        with psycopg.connect(self.dsn) as connection:
            used = connection.execute("SELECT uses FROM registration_tokens").fetchone()
            accepted = connection.execute("SELECT policy FROM accepted_policies").fetchall()
        self.assertEqual((used, accepted), ((1,), [("privacy",)]))

        again = await self.browser.submit(terms)
        self.assertEqual(again.status, 404, "going back in the history signs nobody in")

    async def test_a_user_whose_last_step_was_lost_repeats_it(self) -> None:
        """The server is killed after it has made the account, before the user is signed in."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO registration_tokens (token, uses_allowed) VALUES ('guest', 1)"
            )
        page = await self.browser.submit(await self.browser.get(SIGN_UP), **NEW)
        page = await self.browser.submit(page, token="guest")

        async def fail(*_: Any) -> str:
            raise Unavailable("The server is shutting down")

        with patch.object(BrowserSessions, "open", fail):
            failed = await self.browser.submit(page)
        done = await self.browser.submit(page)

        self.assertEqual((failed.status, self.users()), (200, [("@alice:example.org",)]))
        self.assertIn("shutting down", failed.text)
        self.assertEqual((done.path, done.status), (ACCOUNT, 200))

    async def test_stages_are_completed_in_order_and_none_is_left_out(self) -> None:
        """A stranger without a token gets no account by other forms."""
        page = await self.browser.get(SIGN_UP)
        page = await self.browser.submit(page, **NEW)

        for stage in ("m.login.terms", "m.login.dummy", "m.login.email.identity", "x"):
            page = await self.browser.submit(page, stage=stage)
        self.assertEqual(self.users(), [])


class RequiredMailTests(PagesTestCase, MailTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "oauth": {"enabled": True},
        "registration": {"enabled": True, "email_required": True},
    }

    async def test_user_validates_an_address(self) -> None:
        """The account has the address, with which the user can sign in."""
        page = await self.browser.get(SIGN_UP)
        page = await self.browser.submit(page, **NEW)
        page = await self.browser.submit(page, email="no address")
        self.assertIn("Not an e-mail address", page.text)
        sent = await self.browser.submit(page, email="alice@example.com")
        self.assertIn("A mail was sent to you", sent.text)
        early = await self.browser.submit(sent)
        self.assertIn("has not been validated", early.text)
        await self.follow(self.mails.mails[-1].link)

        done = await self.browser.submit(early)

        self.assertEqual(done.path, ACCOUNT)
        other = self.new_browser()
        page = await self.sign_in("x", other, password="a new horse", as_name="alice@example.com")
        self.assertIn("@alice:example.org", page.text)


class ClosedTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **PagesTestCase.settings,
        "registration": {"enabled": False},
    }

    async def test_nobody_signs_up_where_registration_is_disabled(self) -> None:
        """An operator decides who has an account."""
        self.assertEqual((await self.browser.get(SIGN_UP)).status, 403)
        self.assertEqual((await self.browser.post(SIGN_UP, NEW)).status, 403)
        page = await self.browser.get(sign_in_location(TARGET))
        self.assertNotIn("sign_up", page.text)
