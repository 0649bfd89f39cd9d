"""Registration with an e-mail address, and a new password by mail, on a whole server."""

from typing import Any

from tests.api.accounts.test_third_party_ids import BOB, SECRET, MailTestCase
from tests.support.actors import Actor

EMAIL = "m.login.email.identity"
NEW = "battery staple"


class RegistrationTests(MailTestCase):
    settings = {"registration": {"enabled": True, "guests": True}}  # noqa: RUF012

    async def with_email(self, name: str, named: dict[str, str], **more: Any) -> Any:
        """Register with an address that was validated."""
        auth = {"type": EMAIL, "threepid_creds": named}
        return await self.anybody.post(
            "/register", {"username": name, "password": NEW, "auth": auth, **more}
        )

    async def test_an_address_may_be_given(self) -> None:
        """It is on the account from the start."""
        needed = await self.needed(self.anybody.post("/register", {"username": "bob"}))
        self.assertEqual(needed["flows"], [{"stages": ["m.login.dummy"]}, {"stages": [EMAIL]}])

        bob = self._actor(await self.with_email("bob", await self.validate("/register")))

        self.assertEqual(await self.addresses(bob), [BOB])
        email = {"type": "m.id.thirdparty", "medium": "email", "address": BOB}
        self.assertEqual(await self.log_in_as(email, NEW), bob.user_id)

    async def test_an_address_is_good_for_one_account(self) -> None:
        """However often its mail was confirmed."""
        named = await self.validate("/register")
        other = await self.validate("/register", client_secret="another")
        await self.with_email("bob", named)

        spent = await self.needed(self.with_email("robert", named))
        self.assertEqual(spent["errcode"], "M_THREEPID_AUTH_FAILED")
        second = self.with_email("robert", other | {"client_secret": "another"})
        await self.assert_refused("M_THREEPID_IN_USE", second, 400)
        await self.anybody.get("/register/available", username="robert")

    async def test_an_address_that_was_taken_meanwhile_makes_no_account(self) -> None:
        """Two confirm at once; the second one gets an error and nothing else."""
        named = await self.validate("/register")
        body = {"username": "bob", "password": NEW}
        session = (await self.needed(self.anybody.post("/register", body)))["session"]
        page = f"{self.url}/_matrix/client/v3/auth/{EMAIL}/fallback/web?session={session}"
        await (await self._http.post(page, data=named)).text()
        await self.add(await self.register("eve"))

        late = self.anybody.post("/register", body | {"auth": {"session": session}})

        await self.assert_refused("M_THREEPID_IN_USE", late, 400)
        await self.anybody.get("/register/available", username="bob")

    async def test_a_guest_brings_an_address_along(self) -> None:
        """An upgraded guest has what a new user has."""
        guest = await self.register_guest()
        name = guest.user_id[1:].partition(":")[0]
        named = await self.validate("/register")

        await self.with_email(name, named, guest_access_token=guest.token)

        self.assertEqual(await self.addresses(guest), [BOB])

    async def test_the_stage_has_a_page(self) -> None:
        """Clients that do not know the stage open a browser."""
        body = {"username": "bob", "password": NEW}
        session = (await self.needed(self.anybody.post("/register", body)))["session"]
        page = f"{self.url}/_matrix/client/v3/auth/{EMAIL}/fallback/web?session={session}"

        async def submit(form: dict[str, str]) -> str:
            return str(await (await self._http.post(page, data=form)).text())

        shown = await (await self._http.get(page)).text()
        self.assertIn('name="email"', shown)
        self.assertIn("Not an e-mail address", await submit({"email": "bob"}))
        sent = await submit({"email": BOB})
        hidden = {
            name: sent.partition(f'name="{name}" value="')[2].partition('"')[0]
            for name in ("sid", "client_secret")
        }
        self.assertIn("has not been validated", await submit(hidden))
        await self.follow(self.mails.mails[0].link)
        self.assertIn("Done", await submit(hidden))

        response = await self.anybody.post("/register", body | {"auth": {"session": session}})
        self.assertEqual(response["user_id"], "@bob:example.org")


class RequiredEmailTests(MailTestCase):
    settings = {  # noqa: RUF012
        "registration": {"enabled": True, "email_required": True, "token_required": True}
    }

    async def test_registration_needs_an_address(self) -> None:
        """The address comes first, so that the other stages alone are no complete flow."""
        needed = await self.needed(self.anybody.post("/register", {"username": "bob"}))

        self.assertEqual(needed["flows"], [{"stages": [EMAIL, "m.login.registration_token"]}])


class WithoutMailTests(MailTestCase):
    email = {"smtp_host": None}  # noqa: RUF012

    async def test_nothing_is_offered_that_needs_mails(self) -> None:
        """A user does not wait for a mail that cannot be sent."""
        needed = await self.needed(self.anybody.post("/register", {"username": "bob"}))
        self.assertEqual(needed["flows"], [{"stages": ["m.login.dummy"]}])
        needed = await self.needed(self.anybody.post("/account/password", {"new_password": NEW}))
        self.assertEqual(needed["flows"], [{"stages": ["m.login.password"]}])
        bob = await self.register("bob")
        capabilities = (await bob.get("/capabilities"))["capabilities"]
        self.assertEqual(capabilities["m.3pid_changes"], {"enabled": False})

    async def test_requests_for_mails_are_refused(self) -> None:
        """The errors are those of the specification."""
        body = {"client_secret": SECRET, "email": BOB, "send_attempt": 1}
        for path, errcode, status in (
            ("/register", "M_THREEPID_DENIED", 403),
            ("/account/3pid", "M_THREEPID_MEDIUM_NOT_SUPPORTED", 400),
            ("/account/password", "M_THREEPID_DENIED", 403),
        ):
            attempt = self.anybody.post(f"{path}/email/requestToken", body)
            await self.assert_refused(errcode, attempt, status)


class PasswordTests(MailTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.bob = await self.register("bob")
        await self.add(self.bob)

    async def reset(self, named: dict[str, str], actor: Actor | None = None, **more: Any) -> None:
        """Set a new password by mail."""
        auth = {"type": EMAIL, "threepid_creds": named}
        body = {"new_password": NEW, "auth": auth, **more}
        await (actor or self.anybody).post("/account/password", body)

    async def check(self, password: str) -> None:
        """Bob's password is this one."""
        user = {"type": "m.id.user", "user": "bob"}
        self.assertEqual(await self.log_in_as(user, password), self.bob.user_id)

    async def test_who_forgot_the_password_sets_a_new_one(self) -> None:
        """All devices are logged out, as a thief may have one."""
        named = await self.validate("/account/password")

        await self.reset(named)

        await self.check(NEW)
        await self.assert_refused("M_UNKNOWN_TOKEN", self.bob.get("/devices"), 401)

    async def test_devices_stay_logged_in_on_request(self) -> None:
        """A user who only forgot the password keeps their sessions."""
        await self.reset(await self.validate("/account/password"), logout_devices=False)

        await self.bob.get("/devices")

    async def test_a_mail_is_valid_for_one_new_password(self) -> None:
        """A later reader of the mail cannot use it."""
        named = await self.validate("/account/password")
        await self.reset(named)

        needed = await self.needed(self.reset(named))

        self.assertEqual(needed["errcode"], "M_THREEPID_AUTH_FAILED")

    async def test_a_weak_password_does_not_spend_the_mail(self) -> None:
        """The user chooses a better one."""
        named = await self.validate("/account/password")
        await self.assert_refused("M_WEAK_PASSWORD", self.reset(named, new_password="x"), 400)

        await self.reset(named)

        await self.check(NEW)

    async def test_who_is_logged_in_may_use_their_own_address_only(self) -> None:
        """Another user's address does not confirm, and no password changes."""
        eve = await self.register("eve")
        named = await self.validate("/account/password")

        await self.assert_refused("M_FORBIDDEN", self.reset(named, eve), 403)
        await self.check("the password of bob")

        await self.reset(named, self.bob)
        await self.check(NEW)
        await self.bob.get("/devices")

    async def test_who_knows_the_password_changes_it_without_being_logged_in(self) -> None:
        """The proof says whose password it is."""
        auth = self.password_of(self.bob)

        await self.anybody.post("/account/password", {"new_password": NEW, "auth": auth})

        await self.check(NEW)

    async def test_a_mail_for_another_purpose_gives_no_password(self) -> None:
        """A user who confirms an address does not confirm a password reset."""
        named = await self.validate("/account/3pid", "other@example.com")

        needed = await self.needed(self.reset(named))

        self.assertEqual(needed["errcode"], "M_THREEPID_AUTH_FAILED")

    async def test_an_address_without_an_account_gets_a_mail_that_says_so(self) -> None:
        """The client that requested it does not learn that."""
        body = {"client_secret": SECRET, "email": "no@example.com", "send_attempt": 1}

        await self.anybody.post("/account/password/email/requestToken", body)

        mail = self.mails.mails[-1]
        self.assertIn("No account", mail.subject)
        self.assertNotIn("token=", mail.body())

    async def test_an_address_that_was_removed_meanwhile_gives_no_password(self) -> None:
        """It is the owner at the end that counts."""
        named = await self.validate("/account/password")
        gone = {"medium": "email", "address": BOB}
        await self.bob.post("/account/3pid/delete", gone)

        await self.assert_refused("M_THREEPID_NOT_FOUND", self.reset(named), 400)

        await self.check("the password of bob")
