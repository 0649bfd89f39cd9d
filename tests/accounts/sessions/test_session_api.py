"""Sessions over HTTP: registering, logging in and out, refreshing."""

from homeserver.storage.accounts.users import set_locked
from tests.accounts.api import BASEURL, V3, ApiTestCase
from tests.accounts.support import ALICE, PASSWORD


class SessionsOverHttpTests(ApiTestCase):
    async def test_register_use_and_log_out(self) -> None:
        """The life of a session, as every client lives it."""
        status, body = await self.request("POST", f"{V3}/register", {})
        self.assertEqual((status, body["flows"]), (401, [{"stages": ["m.login.dummy"]}]))
        session = await self.register(device_id="PHONE")
        token = session["access_token"]

        self.assertEqual(session.keys(), {"user_id", "device_id", "access_token"})
        self.assertEqual(
            await self.ok("GET", f"{V3}/account/whoami", None, token),
            {"user_id": ALICE, "device_id": "PHONE", "is_guest": False},
        )
        self.assertEqual(await self.ok("POST", f"{V3}/logout", None, token), {})
        self.assertEqual(
            await self.refusal("GET", f"{V3}/account/whoami", None, token), (401, "M_UNKNOWN_TOKEN")
        )

    async def test_log_in_and_log_out_everywhere(self) -> None:
        """A second device gets the base URL of the server."""
        await self.register()
        flows = await self.ok("GET", f"{V3}/login")
        self.assertIn({"type": "m.login.password"}, flows["flows"])
        identifier = {"type": "m.id.user", "user": "alice"}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}

        session = await self.ok("POST", f"{V3}/login", body)

        self.assertEqual(session["well_known"], {"m.homeserver": {"base_url": BASEURL}})
        await self.ok("POST", f"{V3}/logout/all", {}, session["access_token"])
        self.assertEqual(
            await self.refusal("POST", f"{V3}/logout", {}, session["access_token"]),
            (401, "M_UNKNOWN_TOKEN"),
        )
        self.assertEqual(await self.refusal("POST", f"{V3}/logout", {}), (401, "M_MISSING_TOKEN"))
        self.assertEqual(
            await self.refusal("POST", f"{V3}/login", body | {"password": "no"}),
            (403, "M_FORBIDDEN"),
        )

    async def test_refresh(self) -> None:
        """A client that can refresh gets tokens that expire, and new ones."""
        session = await self.register(refresh_token=True)
        self.assertEqual(session["expires_in_ms"], 3_600_000)
        body = {"refresh_token": session["refresh_token"]}

        renewed = await self.ok("POST", f"{V3}/refresh", body)

        self.assertEqual(renewed.keys(), {"access_token", "refresh_token", "expires_in_ms"})
        await self.ok("GET", f"{V3}/account/whoami", None, renewed["access_token"])
        self.assertEqual(
            await self.refusal("POST", f"{V3}/refresh", body), (401, "M_UNKNOWN_TOKEN")
        )

    async def test_a_login_token_logs_in_another_device(self) -> None:
        """A QR code from the laptop logs in the phone, after a password."""
        token = (await self.register())["access_token"]
        path = "/_matrix/client/v1/login/get_token"
        status, body = await self.request("POST", path, {}, token)
        self.assertEqual(status, 401)
        auth = {"type": "m.login.password", "password": PASSWORD, "session": body["session"]}

        issued = await self.ok("POST", path, {"auth": auth}, token)

        self.assertEqual(issued["expires_in_ms"], 120_000)
        login = {"type": "m.login.token", "token": issued["login_token"]}
        self.assertEqual((await self.ok("POST", f"{V3}/login", login))["user_id"], ALICE)

    async def test_guests(self) -> None:
        """A guest gets in without a name, and not far."""
        guest = await self.ok("POST", f"{V3}/register?kind=guest", {})
        token = guest["access_token"]

        who = await self.ok("GET", f"{V3}/account/whoami", None, token)

        self.assertTrue(who["is_guest"])
        self.assertEqual(
            await self.refusal("POST", f"{V3}/account/password", {"new_password": "x"}, token),
            (403, "M_GUEST_ACCESS_FORBIDDEN"),
        )

    async def test_availability_of_names_and_tokens(self) -> None:
        """Forms show at once what would be refused later."""
        await self.register()
        path = f"{V3}/register/available?username="

        self.assertEqual(await self.ok("GET", f"{path}bob"), {"available": True})
        self.assertEqual(await self.refusal("GET", f"{path}alice"), (400, "M_USER_IN_USE"))
        self.assertEqual(await self.refusal("GET", f"{path}%C3%A9"), (400, "M_INVALID_USERNAME"))
        validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
        self.assertEqual(await self.ok("GET", f"{validity}guess"), {"valid": False})

    async def test_a_locked_user_can_do_nothing_but_log_out(self) -> None:
        """The client keeps the session and says why nothing works."""
        token = (await self.register())["access_token"]
        await self.db.run(set_locked, ALICE, True)

        status, body = await self.request("GET", f"{V3}/devices", None, token)

        self.assertEqual((status, body["errcode"]), (401, "M_USER_LOCKED"))
        self.assertTrue(body["soft_logout"])
        await self.ok("POST", f"{V3}/logout", {}, token)
