"""Forms that no page has made: they are refused, and cause no error of the server."""

from random import Random
from typing import Any, ClassVar
from urllib.parse import quote

from tests.api.account_pages.support import PagesTestCase
from tests.api.accounts.test_third_party_ids import BOB, MailTestCase

ACCOUNT = "/_matrix/account"
ENTRANCES = ("sign_in", "sign_up", "reset_password", "reset_password/new", "sign_out")
ACTIONS = (
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.cross_signing_reset",
    "io.homeserver.password",
    "org.matrix.account_deactivate",
    "",
)
NAMES = (
    "user", "password", "new_password", "repeated_password", "session", "stage", "email", "sid",
    "client_secret", "token", "type", "threepid_creds", "display_name", "remove_picture",
    "logout_devices", "g-recaptcha-response", "auth", "identifier", "x" * 500, "\u202e", "",
)  # fmt: skip
VALUES = (
    "", " ", "alice", "@alice:example.org", "@alice:other.example", "@", "a@b", BOB,
    "m.login.dummy",
    "m.login.terms", "m.login.email.identity", "m.login.password", "m.login.registration_token",
    "m.login.recaptcha", "x" * 20_000, "\u202e\U0001f600", "'; --", "<script>", "{}", "[]", "-1",
    "\n\r\t\x01", "%00", "../..", "changePassword", "\ud7ff",
)  # fmt: skip
ROUNDS = 40


class HostileFormTests(PagesTestCase, MailTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "oauth": {"enabled": True},
        "registration": {
            "enabled": True,
            "token_required": True,
            "terms": [{"id": "p", "version": "1", "name": "P", "url": "https://example.org/p"}],
        },
    }

    async def test_random_fields_cause_no_error_of_the_server(self) -> None:
        """A stranger gets a page that says what is wrong."""
        random = Random(4)
        token = (await self.browser.get(f"{ACCOUNT}/sign_in")).forms()[0][1]["form_token"]
        for entrance in ENTRANCES:
            for _ in range(ROUNDS):
                page = await self.browser.post(f"{ACCOUNT}/{entrance}", some_form(random, token))
                self.assertLess(page.status, 500, entrance)
                self.assertNotIn("<script>", page.text)
                self.assertNotIn("homeserver_session", self.browser.cookies)


def some_form(random: Random, token: str) -> dict[str, str]:
    """A form with the right token and some fields of any pages."""
    names = random.sample(NAMES, random.randint(1, 8))
    return {**{name: random.choice(VALUES) for name in names}, "form_token": token}


class HostileUserTests(PagesTestCase):
    async def test_random_fields_of_a_user_cause_no_error_of_the_server(self) -> None:
        """A user with a strange client loses nothing but what they asked to lose."""
        await self.register("alice")
        await self.sign_in("alice", self.browser)
        random = Random(5)
        token = (await self.browser.get(ACCOUNT)).forms()[0][1]["form_token"]
        for action in ACTIONS:
            for _ in range(ROUNDS):
                device_id = quote(random.choice(VALUES), safe="")
                address = f"{ACCOUNT}?action={action}&device_id={device_id}"
                page = await self.browser.post(address, some_form(random, token))
                self.assertLess(page.status, 500, address)
                self.assertNotIn("<script>", page.text)
        self.assertEqual((await self.browser.get(ACCOUNT)).status, 200)

    async def test_bodies_that_are_no_forms_are_refused(self) -> None:
        """Neither size nor encoding gets past the reading of a form."""
        for path in (ACCOUNT, *(f"{ACCOUNT}/{entrance}" for entrance in ENTRANCES[:2])):
            for body in (b"\xff\xfe", b"a=%ff", b"a=%00", b"a=1&a=2", b"&" * 100):
                self.assertEqual((await self.browser.post_body(path, body)).status, 400, path)
            page = await self.browser.post_body(path, b"a=" + b"x" * 70_000)
            self.assertEqual(page.status, 413)
