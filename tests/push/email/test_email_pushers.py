"""Pushers by e-mail over the API: set, deleted with the address, and ended by a link."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.push.email.email_case import ALICE, LONG_DELAY, EmailTestCase, email_pusher
from tests.support.server import ServerTestCase


class EmailPusherTests(EmailTestCase):
    async def test_a_pusher_is_shown_as_it_was_set(self) -> None:
        """A settings page shows whether mails are on; they belong to no device."""
        await self.set_pusher()

        (shown,) = (await self.alice.get("/pushers"))["pushers"]

        self.assertTrue(shown.pop("enabled") and shown.pop("org.matrix.msc3881.enabled"))
        self.assertEqual(shown, email_pusher())

    async def test_only_addresses_of_the_account_can_be_set(self) -> None:
        """Nobody can have mails sent to somebody else."""
        for body in (email_pusher("bob@example.com"), email_pusher("eve@example.com")):
            await self.assert_refused(
                "M_THREEPID_NOT_FOUND", self.alice.post("/pushers/set", body), 400
            )
        await self.assert_refused(
            "M_THREEPID_NOT_FOUND", self.bob.post("/pushers/set", email_pusher()), 400
        )
        self.assertEqual(await self.pushkeys(), [])

    async def test_what_is_set_is_checked(self) -> None:
        """A pusher that could never work is refused."""
        for change in (
            {"app_id": "org.example.app"},
            {"pushkey": "no address"},
            {"pushkey": f"{ALICE}\r\nBcc: all@example.com"},
            {"data": {"brand": 7}},
            {"data": {"brand": "b" * 65}},
            {"kind": "http", "data": {"url": "https://example.com/_matrix/push/v1/notify"}},
        ):
            body = email_pusher() | change
            await self.assert_refused("M_INVALID_PARAM", self.alice.post("/pushers/set", body), 400)

    async def test_an_address_has_one_spelling(self) -> None:
        """A client may write it as the user typed it."""
        await self.alice.post("/pushers/set", email_pusher("Alice@EXAMPLE.com"))
        self.assertEqual(await self.pushkeys(), [ALICE])

        body = {"kind": None, "app_id": "m.email", "pushkey": "Alice@EXAMPLE.com"}
        await self.alice.post("/pushers/set", body)

        self.assertEqual(await self.pushkeys(), [])

    async def test_a_pusher_outlives_the_device_that_set_it(self) -> None:
        """A mailbox is where a user learns of messages when they are logged out everywhere."""
        await self.set_pusher()
        other = await self.log_in(self.alice)
        await self.alice.post("/logout")
        shown = (await other.get("/pushers"))["pushers"]
        self.assertEqual([each["pushkey"] for each in shown], [ALICE])
        await other.post("/logout/all")

        await self.bob.say(self.room, "hello")

        (mail,) = await self.mailed(1)
        self.assertIn("hello", mail.body())

    async def test_a_locked_or_suspended_user_gets_no_mail(self) -> None:
        """They cannot read it in a client either, and get mails again afterwards."""
        await self.set_pusher()
        admin = await self.register_admin("admin")
        for action, key in (("lock", "locked"), ("suspend", "suspended")):
            path = f"/_matrix/client/v1/admin/{action}/{self.alice.user_id}"
            await admin.request("PUT", path, {key: True})
            await self.bob.say(self.room, f"while {key}")
            await self.assert_no_more(0)
            await admin.request("PUT", path, {key: False})

        await self.bob.say(self.room, "free again")
        (mail,) = await self.mailed(1)

        self.assertIn("free again", mail.body())

    async def test_a_pusher_can_be_switched_off(self) -> None:
        """As those of phones (MSC3881)."""
        await self.set_pusher(enabled=False)
        await self.bob.say(self.room, "hello")
        await self.assert_no_more(0)


class EndOfPusherTests(EmailTestCase):
    delay: ClassVar[float] = LONG_DELAY

    async def test_a_pusher_goes_with_its_address(self) -> None:
        """Mails must not go to a mailbox that was taken from the account."""
        await self.set_pusher()
        await self.bob.say(self.room, "hello")

        await self.alice.post("/account/3pid/delete", {"medium": "email", "address": ALICE})

        self.assertEqual(await self.pushkeys(), [])
        await self.assert_no_more(0)

    async def test_a_pusher_goes_with_the_account(self) -> None:
        """Who deactivates their account hears no more of it."""
        await self.set_pusher()
        await self.bob.say(self.room, "hello")

        await self.alice.post("/account/deactivate", {"auth": self.password_of(self.alice)})

        await self.assert_no_more(0)


class UnsubscribeTests(EmailTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.set_pusher()
        await self.bob.say(self.room, "hello")
        (self.mail,) = await self.mailed(1)
        self.link = self.unsubscribe_link(self.mail)

    async def test_a_mail_program_ends_the_mails_with_one_click(self) -> None:
        """RFC 8058: a POST request without cookies, which may come twice."""
        headers = dict(self.mail.message.raw_items())
        self.assertEqual(headers["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click")
        # Mail programs take it as it is, so it must be neither encoded nor in several lines.
        self.assertEqual(headers["List-Unsubscribe"], f"<{self.link}>")
        path = urlsplit(self.link)

        for _ in range(2):
            response = await self._http.post(
                f"{self.url}{path.path}?{path.query}", data={"List-Unsubscribe": "One-Click"}
            )
            self.assertEqual(response.code, 200)
            await response.text()

        self.assertEqual(await self.pushkeys(), [])
        await self.bob.say(self.room, "later")
        await self.assert_no_more(1)

    async def test_the_link_in_a_mail_asks_first(self) -> None:
        """Mail servers open links to scan for viruses."""
        self.assertIn(self.link, self.mail.body())
        status, page, _ = await self.follow(self.link)
        self.assertEqual((status, await self.pushkeys()), (200, [ALICE]))
        self.assertIn('<form method="post">', page)

        status, page, _ = await self.follow(self.link, "POST")

        self.assertEqual((status, await self.pushkeys()), (200, []))
        status, page, _ = await self.follow(self.link)
        self.assertEqual(status, 404)
        self.assertIn("no longer valid", page)

    async def test_nobody_can_guess_a_link(self) -> None:
        """A token is random, and a wrong one says nothing and does nothing."""
        base, _, token = self.link.partition("=")
        self.assertGreaterEqual(len(token), 43)

        for wrong in ("", "x", token[:-1], token + "x", "%00", "%ff", "a" * 10_000):
            for method in ("GET", "POST"):
                status, page, _ = await self.follow(f"{base}={wrong}", method)
                self.assertLess(status, 500, (wrong, page))
                self.assertNotIn(ALICE, page)

        self.assertEqual(await self.pushkeys(), [ALICE])


class SwitchedOffTests(EmailTestCase):
    email: ClassVar[dict[str, Any]] = {"notifications": False}

    async def test_mails_can_be_switched_off(self) -> None:
        """The operator decides whether messages leave the server by mail."""
        await self.assert_refused(
            "M_INVALID_PARAM", self.alice.post("/pushers/set", email_pusher()), 400
        )


class WithoutMailServerTests(ServerTestCase):
    async def test_there_are_none_without_a_mail_server(self) -> None:
        """Clients learn at once that no mail will come."""
        alice = await self.register("alice")
        await self.assert_refused(
            "M_INVALID_PARAM", alice.post("/pushers/set", email_pusher()), 400
        )
