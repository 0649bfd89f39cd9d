"""One's own account over HTTP, and what administrators do to others."""

from urllib.parse import quote

from homeserver.storage.accounts.users import set_admin
from tests.accounts.api import V3, ApiTestCase
from tests.accounts.support import ALICE, BOB, PASSWORD, SERVER

ROOM = quote("!room:example.org")


class AccountOverHttpTests(ApiTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.token = (await self.register(device_id="PHONE"))["access_token"]
        self.auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": ALICE},
            "password": PASSWORD,
        }

    async def test_devices(self) -> None:
        """List, rename and remove; removing takes the password."""
        await self.ok("PUT", f"{V3}/devices/PHONE", {"display_name": "Pocket"}, self.token)
        listed = await self.ok("GET", f"{V3}/devices", None, self.token)
        self.assertEqual(
            listed["devices"],
            [
                {
                    "device_id": "PHONE",
                    "display_name": "Pocket",
                    "last_seen_ip": "127.0.0.1",
                    "last_seen_ts": 1_700_000_000_000,
                }
            ],
        )
        status, _ = await self.request("DELETE", f"{V3}/devices/PHONE", None, self.token)
        self.assertEqual(status, 401)

        body = {"devices": ["PHONE"] * 2_001, "auth": self.auth}
        self.assertEqual(
            await self.refusal("POST", f"{V3}/delete_devices", body, self.token),
            (400, "M_BAD_JSON"),
        )
        body = {"devices": ["PHONE"], "auth": self.auth}
        await self.ok("POST", f"{V3}/delete_devices", body, self.token)

        self.assertEqual(
            await self.refusal("GET", f"{V3}/devices/PHONE", None, self.token),
            (401, "M_UNKNOWN_TOKEN"),
        )

    async def test_a_new_password(self) -> None:
        """The old one is confirmed, the current session continues, the others end."""
        identifier = self.auth["identifier"]
        login = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        other = (await self.ok("POST", f"{V3}/login", login))["access_token"]
        body = {"new_password": "battery staple"}
        weak = await self.refusal(
            "POST", f"{V3}/account/password", {"new_password": "x"}, self.token
        )
        self.assertEqual(weak, (400, "M_WEAK_PASSWORD"))

        await self.ok("POST", f"{V3}/account/password", body | {"auth": self.auth}, self.token)

        await self.ok("GET", f"{V3}/account/whoami", None, self.token)
        self.assertEqual((await self.refusal("GET", f"{V3}/devices", None, other))[0], 401)
        await self.ok("POST", f"{V3}/login", login | {"password": "battery staple"})

    async def test_deactivation(self) -> None:
        """The account ends with the answer."""
        response = await self.ok(
            "POST", f"{V3}/account/deactivate", {"auth": self.auth, "erase": True}, self.token
        )

        self.assertEqual(response, {"id_server_unbind_result": "success"})
        self.assertEqual((await self.refusal("GET", f"{V3}/devices", None, self.token))[0], 401)

    async def test_profiles(self) -> None:
        """All users may read a profile; its owner may change it."""
        profile = f"{V3}/profile/{ALICE}"
        self.assertEqual(await self.ok("GET", f"{profile}/avatar_url"), {})
        name = {"displayname": "Alice"}

        await self.ok("PUT", f"{profile}/displayname", name, self.token)
        await self.ok("PUT", f"{profile}/m.tz", {"m.tz": "UTC"}, self.token)

        self.assertEqual(await self.ok("GET", profile), name | {"m.tz": "UTC"})
        self.assertEqual(await self.ok("GET", f"{profile}/displayname"), name)
        await self.ok("DELETE", f"{profile}/m.tz", None, self.token)
        self.assertEqual(await self.refusal("GET", f"{profile}/m.tz"), (404, "M_NOT_FOUND"))
        for path, body, refusal in (
            (f"{profile}/displayname", {}, (400, "M_MISSING_PARAM")),
            (f"{profile}/No%20Field", name, (400, "M_INVALID_PARAM")),
            (f"{profile}/{'a' * 256}", name, (400, "M_KEY_TOO_LARGE")),
            (f"{V3}/profile/{BOB}/displayname", name, (403, "M_FORBIDDEN")),
        ):
            self.assertEqual(await self.refusal("PUT", path, body, self.token), refusal)

    async def test_account_data_and_tags(self) -> None:
        """Stored as it came, for the account and for a room."""
        user = f"{V3}/user/{ALICE}"
        for path in (f"{user}/account_data/org.e", f"{user}/rooms/{ROOM}/account_data/org.e"):
            self.assertEqual(
                await self.refusal("GET", path, None, self.token), (404, "M_NOT_FOUND")
            )
            await self.ok("PUT", path, {"at": path}, self.token)
            self.assertEqual(await self.ok("GET", path, None, self.token), {"at": path})
        await self.ok("PUT", f"{user}/rooms/{ROOM}/tags/u.work", {"order": 1}, self.token)
        tags = await self.ok("GET", f"{user}/rooms/{ROOM}/tags", None, self.token)
        self.assertEqual(tags, {"tags": {"u.work": {"order": 1}}})
        await self.ok("DELETE", f"{user}/rooms/{ROOM}/tags/u.work", None, self.token)

        other = f"{V3}/user/{BOB}/account_data/org.e"
        for path, refusal in (
            (f"{user}/account_data/m.push_rules", (405, "M_BAD_JSON")),
            (f"{user}/rooms/{ROOM}/account_data/m.fully_read", (405, "M_BAD_JSON")),
            (f"{user}/rooms/nowhere/account_data/org.e", (400, "M_INVALID_PARAM")),
            (other, (403, "M_FORBIDDEN")),
        ):
            self.assertEqual(await self.refusal("PUT", path, {}, self.token), refusal)
        path = f"{user}/account_data/org.e"
        self.assertEqual(
            await self.refusal("PUT", path, ["no object"], self.token), (400, "M_BAD_JSON")
        )

    async def test_filters(self) -> None:
        """Defined once, named afterwards."""
        path = f"{V3}/user/{ALICE}/filter"
        content = {"room": {"timeline": {"limit": 5}}}

        defined = await self.ok("POST", path, content, self.token)

        found = await self.ok("GET", f"{path}/{defined['filter_id']}", None, self.token)
        self.assertEqual(found, content)

    async def test_openid(self) -> None:
        """A token for a widget."""
        path = f"{V3}/user/{ALICE}/openid/request_token"

        token = await self.ok("POST", path, {}, self.token)

        self.assertEqual(token["matrix_server_name"], SERVER)
        self.assertEqual((token["token_type"], token["expires_in"]), ("Bearer", 3600))
        refused = await self.refusal("POST", path, [], self.token)
        self.assertEqual(refused, (400, "M_BAD_JSON"))

    async def test_administrators_lock_and_suspend_others(self) -> None:
        """Only they, and not one another."""
        await self.register("bob")
        lock = f"/_matrix/client/v1/admin/lock/{BOB}"
        suspend = f"/_matrix/client/v1/admin/suspend/{BOB}"
        self.assertEqual(await self.refusal("GET", lock, None, self.token), (403, "M_FORBIDDEN"))
        await self.db.run(set_admin, ALICE, True)
        self.tokens.forget_user(ALICE)

        await self.ok("PUT", lock, {"locked": True}, self.token)
        await self.ok("PUT", suspend, {"suspended": True}, self.token)

        self.assertEqual(await self.ok("GET", lock, None, self.token), {"locked": True})
        self.assertEqual(await self.ok("GET", suspend, None, self.token), {"suspended": True})
        for user, refusal in (
            (ALICE, (403, "M_FORBIDDEN")),
            ("@nobody:example.org", (404, "M_NOT_FOUND")),
            ("@bob:elsewhere.example", (400, "M_INVALID_PARAM")),
        ):
            path = f"/_matrix/client/v1/admin/lock/{user}"
            body = {"locked": True}
            self.assertEqual(await self.refusal("PUT", path, body, self.token), refusal)
        capabilities = (await self.ok("GET", f"{V3}/capabilities", None, self.token))[
            "capabilities"
        ]
        self.assertEqual(capabilities["m.account_moderation"], {"suspend": True, "lock": True})
        self.assertEqual(capabilities["m.room_versions"]["default"], "12")
