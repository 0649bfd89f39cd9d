"""Log-in: the credentials that open a session."""

from types import SimpleNamespace
from typing import Any

from homeserver.accounts.login.login import LoginRequest
from homeserver.storage.accounts.users import set_locked
from tests.accounts.support import ALICE, PASSWORD, AccountsTestCase


def by_password(user: str, password: str = PASSWORD) -> LoginRequest:
    """The body of a log-in with a password."""
    identifier = {"type": "m.id.user", "user": user}
    return LoginRequest("m.login.password", identifier=identifier, password=password)


class PasswordLoginTests(AccountsTestCase):
    async def test_a_user_logs_in_by_localpart_or_user_id_in_any_case(self) -> None:
        """People type their names as they like."""
        await self.user()

        for name in ("alice", "Alice", ALICE, "@Alice:example.org"):
            session = await self.login.log_in(by_password(name))
            self.assertEqual(session.user_id, ALICE)

    async def test_the_old_form_of_the_request_still_works(self) -> None:
        """Bots and bridges send `user` beside the password."""
        await self.user()

        session = await self.login.log_in(
            LoginRequest("m.login.password", user="alice", password=PASSWORD)
        )

        self.assertEqual(session.user_id, ALICE)

    async def test_a_wrong_password_and_an_unknown_user_look_alike(self) -> None:
        """An attacker cannot find out which users exist."""
        await self.user()

        wrong = await self.refused(
            self.login.log_in(by_password("alice", "wrong horse")), "M_FORBIDDEN", 403
        )
        unknown = await self.refused(self.login.log_in(by_password("nobody")), "M_FORBIDDEN", 403)

        self.assertEqual(str(wrong), str(unknown))

    async def test_addresses_without_an_account_are_refused(self) -> None:
        """An e-mail address that no account has is a wrong log-in, not a wrong request."""
        email: dict[str, Any] = {"medium": "email", "address": "a@example.org"}
        phone = {"type": "m.id.phone", "country": "GB", "phone": "123"}
        for named in (
            {"identifier": {"type": "m.id.thirdparty", **email}},
            {"identifier": phone},
            email,  # the old form
        ):
            request = LoginRequest("m.login.password", **named, password=PASSWORD)
            await self.refused(self.login.log_in(request), "M_FORBIDDEN", 403)

    async def test_users_of_other_servers_are_refused(self) -> None:
        """@alice of another server is another user."""
        await self.user()

        await self.refused(
            self.login.log_in(by_password("@alice:elsewhere.example")), "M_FORBIDDEN", 403
        )

    async def test_a_request_without_identifier_or_password_is_malformed(self) -> None:
        """A client author sees what is missing."""
        for request in (
            LoginRequest("m.login.password", password=PASSWORD),
            LoginRequest("m.login.password", user="alice"),
            LoginRequest("m.login.password", identifier={"type": "org.what"}, password=PASSWORD),
            LoginRequest("m.login.password", identifier={"user": "alice"}, password=PASSWORD),
        ):
            await self.refused(self.login.log_in(request), "M_BAD_JSON", 400)

    async def test_an_unknown_kind_of_log_in_is_refused(self) -> None:
        """The client learns that this way leads nowhere."""
        await self.refused(self.login.log_in(LoginRequest("org.magic")), "M_UNKNOWN", 400)

    async def test_a_locked_user_cannot_log_in(self) -> None:
        """A lock holds for new sessions too."""
        await self.user()
        await self.db.run(set_locked, ALICE, True)

        await self.refused(self.login.log_in(by_password("alice")), "M_USER_LOCKED", 401)


class LoginTokenTests(AccountsTestCase):
    async def log_in(self, token: str) -> str:
        """The user that a login token logs in."""
        session = await self.login.log_in(LoginRequest("m.login.token", token=token))
        return session.user_id

    async def test_a_login_token_works_once(self) -> None:
        """An attacker who photographs a used QR code cannot log in."""
        await self.user()
        token = await self.credentials.issue_token(ALICE)

        self.assertEqual(await self.log_in(token), ALICE)
        await self.refused(self.log_in(token), "M_FORBIDDEN", 403)

    async def test_a_login_token_expires(self) -> None:
        """A token that was never used is not a second password."""
        await self.user()
        token = await self.credentials.issue_token(ALICE)
        self.clock.advance(120)

        await self.refused(self.log_in(token), "M_FORBIDDEN", 403)


class AppserviceLoginTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.bridge = SimpleNamespace(id="irc", covers_user=lambda user: user.startswith("@irc_"))

    async def test_an_appservice_logs_in_its_users(self) -> None:
        """Bridges need sessions of their users for encryption."""
        await self.user("irc_bob")
        request = LoginRequest("m.login.application_service", user="irc_bob")

        session = await self.login.log_in_for_appservice(self.bridge, request)

        self.assertEqual(session.user_id, "@irc_bob:example.org")

    async def test_an_appservice_cannot_log_in_other_or_unknown_users(self) -> None:
        """A token of a bridge is not a key to every account."""
        await self.user()
        for name, errcode in (("alice", "M_EXCLUSIVE"), ("irc_nobody", "M_FORBIDDEN")):
            request = LoginRequest("m.login.application_service", user=name)
            await self.refused(self.login.log_in_for_appservice(self.bridge, request), errcode)
