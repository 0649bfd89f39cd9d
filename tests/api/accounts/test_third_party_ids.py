"""Addresses of accounts on a whole server: mails by real SMTP, requests over real sockets."""

from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from tests.support.actors import Actor
from tests.support.mail import MailServer
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

BOB = "bob@example.com"
SECRET = "monkeys_are_GREAT"
APP = "https://app.example.com/"


class MailTestCase(ServerTestCase):
    """A server that can send mails. Links in them lead to a proxy that there is not."""

    email: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed

    async def setUp(self) -> None:
        self.mails = MailServer()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.mails.stop()))
        email = {
            "smtp_host": "127.0.0.1",
            "smtp_port": self.mails.port,
            "from": "Example <noreply@example.org>",
            "allowed_redirect_prefixes": [APP],
        }
        self.settings = {
            "public_baseurl": "https://matrix.example.org",
            "email": email | self.email,
            **self.settings,
        }
        await super().setUp()

    async def validate(self, path: str, address: str = BOB, **more: Any) -> dict[str, str]:
        """Ask for a mail, and follow the link in it; gives the credentials of the session."""
        body = {"client_secret": SECRET, "email": address, "send_attempt": 1, **more}
        sid = (await self.anybody.post(f"{path}/email/requestToken", body))["sid"]
        status, _, _ = await self.follow(self.mails.mails[-1].link, "POST")
        self.assertIn(status, (200, 303))
        return {"sid": sid, "client_secret": SECRET}

    async def follow(self, link: str, method: str = "GET") -> tuple[int, str, str | None]:
        """The response of a link's page: status, text and redirect."""
        parts = urlsplit(link)
        self.assertEqual(f"{parts.scheme}://{parts.netloc}", "https://matrix.example.org")
        response = await self._http.request(
            method, f"{self.url}{parts.path}?{parts.query}", allow_redirects=False
        )
        location = response.headers.getRawHeaders("Location", [None])[0]
        return response.code, await response.text(), location

    async def add(self, actor: Actor, address: str = BOB) -> None:
        """A user adds an address to their account."""
        named = await self.validate("/account/3pid", address)
        await actor.post("/account/3pid/add", named | {"auth": self.password_of(actor)})

    def password_of(self, actor: Actor, **more: Any) -> dict[str, Any]:
        """The stage by which a user confirms."""
        name = actor.user_id[1:].partition(":")[0]
        return {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": actor.user_id},
            "password": f"the password of {name}",
            **more,
        }

    async def log_in_as(self, identifier: dict[str, Any], password: str) -> str:
        """The user id after a log-in."""
        body = {"type": "m.login.password", "identifier": identifier, "password": password}
        response = await self.anybody.post("/login", body)
        return str(response["user_id"])

    async def needed(self, attempt: Any) -> dict[str, Any]:
        """The error of a request that needs authentication."""
        refused = await self.assertFailure(Deferred.fromCoroutine(attempt), Refused)
        self.assertEqual(refused.status, 401, refused)
        body: dict[str, Any] = refused.body
        return body

    async def addresses(self, actor: Actor) -> list[str]:
        """The addresses of an account."""
        return [one["address"] for one in (await actor.get("/account/3pid"))["threepids"]]


class AccountAddressTests(MailTestCase):
    async def test_an_address_is_added_after_the_link_and_the_password(self) -> None:
        """Neither a stolen token nor a stolen mailbox is enough."""
        bob = await self.register("bob")
        named = await self.validate("/account/3pid")

        needed = await self.needed(bob.post("/account/3pid/add", named))
        self.assertEqual(needed["flows"], [{"stages": ["m.login.password"]}])
        auth = self.password_of(bob, session=needed["session"])
        await bob.post("/account/3pid/add", named | {"auth": auth})

        (added,) = (await bob.get("/account/3pid"))["threepids"]
        self.assertEqual((added["medium"], added["address"]), ("email", BOB))
        self.assertLessEqual(added["validated_at"], added["added_at"])

    async def test_an_address_is_not_added_before_the_link_was_followed(self) -> None:
        """Any user could claim the address."""
        bob = await self.register("bob")
        body = {"client_secret": SECRET, "email": BOB, "send_attempt": 1}
        response = await self.anybody.post("/account/3pid/email/requestToken", body)
        named = {"sid": response["sid"], "client_secret": SECRET}

        confirmed = named | {"auth": self.password_of(bob)}
        await self.assert_refused(
            "M_THREEPID_AUTH_FAILED", bob.post("/account/3pid/add", confirmed), 403
        )
        old_form = {"three_pid_creds": named | {"id_server": "id.example.org"}}
        await self.assert_refused(
            "M_THREEPID_AUTH_FAILED", bob.post("/account/3pid", old_form), 403
        )
        self.assertEqual(await self.addresses(bob), [])

    async def test_an_address_belongs_to_one_account(self) -> None:
        """The second user who confirms it gets an error, and the first one keeps it."""
        bob, eve = await self.register("bob"), await self.register("eve")
        named = await self.validate("/account/3pid", client_secret="eves")
        eves = {"sid": named["sid"], "client_secret": "eves"}
        await self.add(bob)

        await self.assert_refused("M_THREEPID_IN_USE", eve.post("/account/3pid/add", eves), 400)

        old_form = eve.post("/account/3pid", {"three_pid_creds": eves})
        await self.assert_refused("M_THREEPID_IN_USE", old_form, 400)
        self.assertEqual((await self.addresses(bob), await self.addresses(eve)), ([BOB], []))

    async def test_the_owner_gets_a_mail_about_an_attempt_to_use_an_address_again(self) -> None:
        """The client that requested it learns nothing."""
        await self.add(await self.register("bob"))
        body = {"client_secret": "eves", "email": "BOB@example.com", "send_attempt": 1}

        for path in ("/register", "/account/3pid"):
            response = await self.anybody.post(f"{path}/email/requestToken", body)

            self.assertEqual(list(response), ["sid"])
            mail = self.mails.mails[-1]
            self.assertEqual(mail.recipient, BOB)
            self.assertIn("has an account", mail.subject)
            self.assertNotIn("token=", mail.body())

    async def test_an_address_is_removed(self) -> None:
        """It identifies no account any more, and another user may add it."""
        bob, eve = await self.register("bob"), await self.register("eve")
        await self.add(bob)

        gone = {"medium": "email", "address": "Bob@Example.com"}
        response = await bob.post("/account/3pid/delete", gone)

        self.assertEqual(response, {"id_server_unbind_result": "no-support"})
        self.assertEqual(await self.addresses(bob), [])
        email = {"type": "m.id.thirdparty", "medium": "email", "address": BOB}
        await self.assert_refused("M_FORBIDDEN", self.log_in_as(email, "the password of bob"), 403)
        named = await self.validate("/account/3pid", client_secret="eves")
        eves = {"sid": named["sid"], "client_secret": "eves"}
        await eve.post("/account/3pid", {"three_pid_creds": eves})
        self.assertEqual(await self.addresses(eve), [BOB])

    async def test_the_capability_says_that_addresses_can_be_changed(self) -> None:
        """Clients show the settings for it."""
        bob, guest = await self.register("bob"), await self.register_guest()

        for actor, enabled in ((bob, True), (guest, False)):
            capabilities = (await actor.get("/capabilities"))["capabilities"]
            self.assertEqual(capabilities["m.3pid_changes"], {"enabled": enabled})

    async def test_a_suspended_user_removes_no_address(self) -> None:
        """A suspended user cannot hide an address from administrators."""
        bob, admin = await self.register("bob"), await self.register_admin("admin")
        await self.add(bob)
        path = f"/_matrix/client/v1/admin/suspend/{bob.user_id}"
        await admin.request("PUT", path, {"suspended": True})

        gone = bob.post("/account/3pid/delete", {"medium": "email", "address": BOB})
        await self.assert_refused("M_USER_SUSPENDED", gone, 403)

        self.assertEqual(await self.addresses(bob), [BOB])

    async def test_a_closed_account_has_no_addresses(self) -> None:
        """The address is the person's, who may want another account with it."""
        bob = await self.register("bob")
        await self.add(bob)

        response = await bob.post("/account/deactivate", {"auth": self.password_of(bob)})

        self.assertEqual(response, {"id_server_unbind_result": "success"})
        await self.add(await self.register("robert"))

    async def test_malformed_requests(self) -> None:
        """A malformed request gets an error, and no mail is sent."""
        bob = await self.register("bob")
        good = {"client_secret": SECRET, "email": BOB, "send_attempt": 1}
        for change, errcode in (
            ({"email": "bob"}, "M_INVALID_PARAM"),
            ({"client_secret": "a b"}, "M_INVALID_PARAM"),
            ({"send_attempt": "1"}, "M_BAD_JSON"),
            ({"send_attempt": 2**70}, "M_BAD_JSON"),
            ({"email": None}, "M_BAD_JSON"),
        ):
            for path in ("/register", "/account/3pid", "/account/password"):
                attempt = self.anybody.post(f"{path}/email/requestToken", good | change)
                await self.assert_refused(errcode, attempt, 400)
        for path in ("/account/3pid/delete", "/account/3pid/unbind"):
            nothing = {"medium": "email", "address": "bob"}
            await self.assert_refused("M_INVALID_PARAM", bob.post(path, nothing), 400)
            fax = {"medium": "fax", "address": "1"}
            await self.assert_refused("M_BAD_JSON", bob.post(path, fax), 400)
        self.assertEqual(self.mails.mails, [])

    async def test_telephone_numbers_cannot_be_validated(self) -> None:
        """There is nothing that sends messages to telephones."""
        number = {"client_secret": SECRET, "country": "GB", "phone_number": "07700900001"}
        body = {**number, "send_attempt": 1}
        for path, errcode, status in (
            ("/register", "M_THREEPID_DENIED", 403),
            ("/account/3pid", "M_THREEPID_MEDIUM_NOT_SUPPORTED", 400),
            ("/account/password", "M_THREEPID_DENIED", 403),
        ):
            attempt = self.anybody.post(f"{path}/msisdn/requestToken", body)
            await self.assert_refused(errcode, attempt, status)
            nonsense = body | {"phone_number": "call me"}
            attempt = self.anybody.post(f"{path}/msisdn/requestToken", nonsense)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def test_a_mail_that_cannot_be_sent_is_an_error(self) -> None:
        """The client does not wait for a mail that never comes, and may repeat its request."""
        await self.mails.stop()
        body = {"client_secret": SECRET, "email": BOB, "send_attempt": 1}

        attempt = self.anybody.post("/register/email/requestToken", body)

        await self.assert_refused("M_EMAIL_SEND_ERROR", attempt, 503)


class LinkTests(MailTestCase):
    async def link_of(self, path: str, **more: Any) -> str:
        """The link of a mail that a client has just requested."""
        body = {"client_secret": SECRET, "email": BOB, "send_attempt": 1, **more}
        await self.anybody.post(f"{path}/email/requestToken", body)
        return self.mails.mails[-1].link

    async def test_to_follow_the_link_is_enough_for_a_new_account(self) -> None:
        """One click."""
        status, page, _ = await self.follow(await self.link_of("/register"))

        self.assertEqual(status, 200)
        self.assertIn("is confirmed", page)

    async def test_both_forms_of_the_mail_have_the_link(self) -> None:
        """Whichever the mail program shows."""
        link = await self.link_of("/register")

        self.assertIn(link.replace("&", "&amp;"), self.mails.mails[-1].body("html"))

    async def test_a_link_for_a_new_password_has_a_button(self) -> None:
        """Programs that open all links of a mail must not press it."""
        bob = await self.register("bob")
        await self.add(bob)
        named = {"sid": "", "client_secret": SECRET}
        body = {"client_secret": SECRET, "email": BOB, "send_attempt": 1}
        response = await self.anybody.post("/account/password/email/requestToken", body)
        named["sid"] = response["sid"]
        link = self.mails.mails[-1].link
        auth = {"type": "m.login.email.identity", "threepid_creds": named}
        request = {"new_password": "battery staple", "auth": auth}

        status, page, _ = await self.follow(link)

        self.assertEqual(status, 200)
        self.assertIn('<form method="post">', page)
        needed = await self.needed(self.anybody.post("/account/password", request))
        self.assertEqual(needed["errcode"], "M_THREEPID_AUTH_FAILED")
        await self.follow(link, "POST")
        await self.anybody.post("/account/password", request)

    async def test_a_confirmed_user_is_redirected_to_the_client(self) -> None:
        """The operator has to allow the client's URL."""
        link = await self.link_of("/register", next_link=f"{APP}#/welcome")

        self.assertEqual((await self.follow(link))[::2], (303, f"{APP}#/welcome"))

    async def test_a_confirmed_user_is_not_redirected_to_an_unknown_page(self) -> None:
        """The client that requests the mail cannot choose an arbitrary redirect."""
        link = await self.link_of("/register", next_link="https://evil.example.com/")

        self.assertEqual((await self.follow(link))[::2], (200, None))

    async def test_a_wrong_link_confirms_nothing(self) -> None:
        """A mistyped or an old one."""
        link = await self.link_of("/register")

        for wrong in (link[:-1], link.partition("?")[0]):
            status, page, _ = await self.follow(wrong)
            self.assertEqual(status, 404)
            self.assertIn("no longer valid", page)


class LogInTests(MailTestCase):
    async def test_people_log_in_with_their_address(self) -> None:
        """In both forms, and however it is written."""
        bob = await self.register("bob")
        await self.add(bob)
        password = "the password of bob"

        for address in (BOB, "Bob@Example.COM"):
            email = {"type": "m.id.thirdparty", "medium": "email", "address": address}
            self.assertEqual(await self.log_in_as(email, password), bob.user_id)
        old_form = {"type": "m.login.password", "medium": "email", "address": BOB}
        response = await self.anybody.post("/login", old_form | {"password": password})
        self.assertEqual(response["user_id"], bob.user_id)

    async def test_an_unknown_address_and_a_wrong_password_are_answered_alike(self) -> None:
        """A client cannot find out which accounts exist."""
        await self.add(await self.register("bob"))
        texts = set()
        for address in (BOB, "nobody@example.com", "no address"):
            email = {"type": "m.id.thirdparty", "medium": "email", "address": address}
            attempt = self.log_in_as(email, "wrong password")
            texts.add(str(await self.assert_refused("M_FORBIDDEN", attempt, 403)))

        self.assertEqual(len(texts), 1)

    async def test_an_address_names_the_user_who_confirms(self) -> None:
        """And does not let another one confirm."""
        bob, eve = await self.register("bob"), await self.register("eve")
        await self.add(bob)
        email = {"type": "m.id.thirdparty", "medium": "email", "address": BOB}
        auth = {"type": "m.login.password", "identifier": email}
        auth["password"] = "the password of bob"

        await self.assert_refused(
            "M_FORBIDDEN", eve.post("/delete_devices", {"devices": [], "auth": auth}), 403
        )
        await bob.post("/delete_devices", {"devices": [], "auth": auth})

    async def test_half_an_identifier_is_malformed(self) -> None:
        """The client gets an error that names the missing member."""
        for identifier in (
            {"type": "m.id.thirdparty", "medium": "email"},
            {"type": "m.id.phone", "phone": "07700900001"},
            {"type": "m.id.fax"},
        ):
            attempt = self.log_in_as(identifier, "the password of bob")
            await self.assert_refused("M_BAD_JSON", attempt, 400)
