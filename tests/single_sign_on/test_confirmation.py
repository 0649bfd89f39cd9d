"""User-interactive authentication by single sign-on."""

from typing import Any
from urllib.parse import urlencode

from tests.single_sign_on.support import Page, SingleSignOnTestCase, error_of
from tests.support.actors import Actor
from tests.support.refused import Refused

FALLBACK = "/_matrix/client/v3/auth/m.login.sso/fallback/web"


class ConfirmationTests(SingleSignOnTestCase):
    cas_settings = {"allow_existing_users": True}  # noqa: RUF012

    async def setUp(self) -> None:
        await super().setUp()
        self.user = await self.actor_by(await self.sign_in("cas"))
        self.other = await self.actor_by(await self.sign_in("cas"))

    async def delete_device(self, auth: Any = None) -> Any:
        """Log out the user's other device."""
        body = {} if auth is None else {"auth": auth}
        path = f"/_matrix/client/v3/devices/{self.other.device_id}"
        return await self.user.request("DELETE", path, body)

    async def flows_of(self, actor: Actor) -> Any:
        """The flows, and the session, with which an actor confirms."""
        try:
            await actor.post("/delete_devices", {"devices": [actor.device_id]})
        except Refused as error:
            return error.body["flows"], error.body["session"]
        raise AssertionError("no confirmation was needed")

    async def session(self) -> str:
        """A session that waits to be confirmed."""
        try:
            await self.delete_device()
        except Refused as error:
            session: str = error.body["session"]
            return session
        raise AssertionError("no confirmation was needed")

    async def open_page(self, session: str) -> Page:
        """The page of the stage."""
        return await self.browser.get(f"{self.url}{FALLBACK}?{urlencode({'session': session})}")

    async def confirm(self, session: str) -> Page:
        """Confirm a session in a browser."""
        page = await self.open_page(session)
        forward = await self.browser.submit(page, provider="cas")
        return await self.browser.follow(forward.location, to="https:")

    async def test_each_user_has_the_flows_that_they_can_complete(self) -> None:
        """A password, an identity, or both."""
        password, sso = {"stages": ["m.login.password"]}, {"stages": ["m.login.sso"]}
        alice = await self.register("alice")
        self.assertEqual((await self.flows_of(alice))[0], [password])
        self.assertEqual((await self.flows_of(self.user))[0], [sso])

        self.cas.user = "alice"
        await self.sign_in("cas")
        self.assertEqual((await self.flows_of(alice))[0], [password, sso])

    async def test_a_user_without_a_password_confirms(self) -> None:
        """The page says what will happen; afterwards the client repeats the request."""
        session = await self.session()
        page = await self.open_page(session)
        self.assertIn("log out one of your devices", page.text)
        self.assertIn(self.user.user_id, page.text)
        self.assertNotIn("Example &amp; Co", page.text)

        done = await self.confirm(session)

        self.assertIn("You can close this window", done.text)
        await self.delete_device({"session": session})
        await self.assert_refused("M_UNKNOWN_TOKEN", self.other.get("/account/whoami"))

    async def test_nothing_is_confirmed_without_a_browser(self) -> None:
        """A client cannot complete the stage by itself."""
        session = await self.session()

        for auth in ({"session": session}, {"session": session, "type": "m.login.sso"}):
            with self.assertRaises(Refused) as caught:
                await self.delete_device(auth)
            self.assertEqual(caught.exception.status, 401)

    async def test_another_user_cannot_confirm(self) -> None:
        """A thief of a token has an account at the provider, too."""
        session = await self.session()
        self.cas.user = "thief"
        await self.sign_in("cas")

        page = await self.confirm(session)

        self.assertIn("You have signed in as @thief:example.org", page.text)
        self.assertIn(self.user.user_id, page.text)
        await self.assert_refused("M_FORBIDDEN", self.delete_device({"session": session}), 403)
        # The user may still do it.
        self.cas.user = "cas_user!"
        await self.confirm(session)
        await self.delete_device({"session": session})

    async def test_no_link_leads_past_the_page(self) -> None:
        """The thief's own page, submitted by the browser of the user, is worth nothing."""
        session = await self.session()
        thief = self.new_browser()
        page = await thief.get(f"{self.url}{FALLBACK}?{urlencode({'session': session})}")

        refused = await self.browser.submit(page, provider="cas")
        self.assertEqual((refused.status, error_of(refused)), (404, "M_NOT_FOUND"))
        forward = await thief.submit(page, provider="cas")
        ended = await self.browser.follow(forward.location, to="https:")
        self.assertEqual((ended.status, error_of(ended)), (404, "M_NOT_FOUND"))
        with self.assertRaises(Refused):
            await self.delete_device({"session": session})

    async def test_a_provider_without_an_identity_is_refused(self) -> None:
        """The form has no button for it."""
        page = await self.open_page(await self.session())

        refused = await self.browser.submit(page, provider="openid")

        self.assertEqual((refused.status, error_of(refused)), (404, "M_NOT_FOUND"))

    async def test_sessions_of_strangers_have_no_page(self) -> None:
        """Registration is not confirmed by an identity; an unknown session is an error."""
        try:
            await self.anybody.post("/register", {"username": "x"})
        except Refused as error:
            session = error.body["session"]
        page = await self.open_page(session)
        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))
        page = await self.open_page("unknown")
        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))

    async def test_all_sensitive_operations_are_possible(self) -> None:
        """A login token, cross-signing keys that are replaced, a first password, deactivation."""
        token = await self._confirmed("/_matrix/client/v1/login/get_token", {})
        self.assertIn("login_token", token)
        password = {"new_password": "a new password", "logout_devices": False}
        await self._confirmed("/_matrix/client/v3/account/password", password)
        flows, _ = await self.flows_of(self.user)
        self.assertEqual(
            [flow["stages"] for flow in flows], [["m.login.password"], ["m.login.sso"]]
        )

        await self._confirmed("/_matrix/client/v3/account/deactivate", {"erase": True})
        # The identity is free again, and the name is not.
        page = await self.sign_in("cas")
        user = await self.actor_by(await self.browser.submit(page, localpart="again"))
        self.assertEqual(user.user_id, "@again:example.org")

    async def _confirmed(self, path: str, body: dict[str, Any]) -> Any:
        try:
            await self.user.request("POST", path, body)
        except Refused as error:
            session = error.body["session"]
        await self.confirm(session)
        return await self.user.request("POST", path, {**body, "auth": {"session": session}})


class WithoutPasswordTests(SingleSignOnTestCase):
    server_settings = {"passwords": {"enabled": False}}  # noqa: RUF012

    async def test_capabilities_are_those_of_single_sign_on(self) -> None:
        """There is no password to change, and a login token can be confirmed."""
        user = await self.actor_by(await self.sign_in("cas"))

        found = (await user.get("/capabilities"))["capabilities"]

        self.assertEqual(found["m.change_password"], {"enabled": False})
        self.assertEqual(found["m.get_login_token"], {"enabled": True})
        page = await self.browser.get(f"{self.url}/_matrix/static/client/login/")
        self.assertIn("Continue with The campus", page.text)
        self.assertNotIn("<form", page.text)
        flows = (await self.anybody.get("/login"))["flows"]
        self.assertNotIn({"type": "m.login.password"}, flows)
