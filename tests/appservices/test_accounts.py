"""The accounts of application services: registration, log-in, names, and account management."""

from typing import Any
from urllib.parse import quote

from tests.appservices.support import AppserviceTestCase, AppserviceUser, registration
from tests.support.actors import Client
from tests.support.refused import Refused

APPSERVICE = "m.login.application_service"
ALL_USERS = [{"exclusive": False, "regex": "@.*"}]


def _log_in(user: str, **more: Any) -> dict[str, Any]:
    return {"type": APPSERVICE, "identifier": {"type": "m.id.user", "user": user}, **more}


class GhostTestCase(AppserviceTestCase):
    def bridge(self, token: str | None = "the token of the application service irc") -> Client:
        """A bridge that acts as nobody in particular."""
        client = Client(self._http, self.url)
        client.token = token
        return client


class RegistrationTests(GhostTestCase):
    registrations = (
        registration("irc"),
        registration("xmpp"),
        registration("free", namespaces={"users": [{"exclusive": False, "regex": "@free_.*"}]}),
    )

    async def _register(self, token: str | None, username: Any) -> Any:
        body = {"type": APPSERVICE, "username": username}
        return await self.bridge(token).post("/register", body)

    async def test_a_registration_logs_in_unless_it_inhibits_that(self) -> None:
        """Some bridges use the tokens of their users."""
        answer = await self._register(self.bot().token, "_irc_bob")

        user = self._actor(answer)
        who = await user.get("/account/whoami")
        self.assertEqual(who["user_id"], "@_irc_bob:example.org")
        self.assertEqual(who["device_id"], answer["device_id"])
        carol = await self.bridge().post(
            "/register", {"type": APPSERVICE, "username": "_irc_carol", "inhibit_login": True}
        )
        self.assertEqual(carol, {"user_id": "@_irc_carol:example.org"})

    async def test_only_application_services_register_like_that(self) -> None:
        """Each error as the specification names it."""
        alice = await self.register("alice")

        for token, errcode in ((None, "M_MISSING_TOKEN"), ("?", "M_UNKNOWN_TOKEN")):
            await self.assert_refused(errcode, self._register(token, "_irc_bob"), 401)
            login = self.bridge(token).post("/login", _log_in("_irc_bot"))
            await self.assert_refused(errcode, login, 401)
        await self.assert_refused("M_UNKNOWN_TOKEN", self._register(alice.token, "_irc_bob"), 401)

    async def test_names_are_those_of_the_namespaces(self) -> None:
        """No bridge registers users of another one, or of nobody."""
        token = self.bot().token
        for name in ("bob", "_xmpp_bob", "free_bob"):
            await self.assert_refused("M_EXCLUSIVE", self._register(token, name), 400)
        await self.assert_refused("M_MISSING_PARAM", self._register(token, None), 400)
        for name in ("_irc_b:b", "_irc_b\x01", "_irc_ü", "_irc_" + "b" * 250):
            await self.assert_refused("M_INVALID_USERNAME", self._register(token, name), 400)
        await self._register(token, "_irc_bob")
        await self.assert_refused("M_USER_IN_USE", self._register(token, "_irc_bob"), 400)
        await self.assert_refused("M_USER_IN_USE", self._register(token, "_irc_bot"), 400)

    async def test_names_keep_their_capitals(self) -> None:
        """Bridges name users after those of other networks, whose names have capitals."""
        bob = await self.ghost("_irc_Bob[away]")
        room = await bob.create_room(public=True)
        await bob.say(room, "hello")

        await self.ghost("_irc_bob[away]")
        session = await self.bridge().post("/login", _log_in("_irc_Bob[away]"))
        self.assertEqual(session["user_id"], "@_irc_Bob[away]:example.org")

    async def test_a_shared_namespace_reserves_nothing(self) -> None:
        """Users may take names that are in a namespace which is not exclusive."""
        await self.register("free_alice")

        await self.assert_refused(
            "M_EXCLUSIVE", self.anybody.get("/register/available", username="_xmpp_x"), 400
        )


class LogInTests(GhostTestCase):
    registrations = (registration("irc"), registration("all", namespaces={"users": ALL_USERS}))

    async def test_a_ghost_has_ordinary_sessions_too(self) -> None:
        """The bridge logs in for its user, by a localpart or a user id."""
        await self.ghost("_irc_bob")

        for name in ("_irc_bob", "@_irc_bob:example.org"):
            session = self._actor(await self.bridge().post("/login", _log_in(name)))
            await session.create_room()
        device = await self.bridge().post("/login", _log_in("_irc_bob", device_id="BRIDGE"))
        self.assertEqual(device["device_id"], "BRIDGE")
        await self.bridge().post("/login", {"type": APPSERVICE, "user": "_irc_bot"})

    async def test_a_log_in_that_is_wrong_is_refused(self) -> None:
        """Errors, never a failure of the server."""
        await self.register("alice")
        bodies = (
            ({"type": APPSERVICE}, "M_BAD_JSON"),
            ({"type": APPSERVICE, "identifier": {}}, "M_BAD_JSON"),
            ({"type": APPSERVICE, "identifier": {"type": "m.id.phone"}}, "M_BAD_JSON"),
            (_log_in("_irc_nobody"), "M_FORBIDDEN"),
            (_log_in("alice"), "M_EXCLUSIVE"),
            (_log_in("@_irc_bob:elsewhere.org"), "M_FORBIDDEN"),
            (_log_in("_irc_bot", device_id="x" * 300), "M_INVALID_PARAM"),
        )
        for body, errcode in bodies:
            with self.subTest(body=body):
                await self.assert_refused(errcode, self.bridge().post("/login", body))

    async def test_the_log_in_is_offered_where_there_are_bridges(self) -> None:
        """A server without application services does not list it."""
        flows = (await self.anybody.get("/login"))["flows"]
        self.assertIn({"type": APPSERVICE}, flows)

        for each in (self._directory / "appservices.d").iterdir():
            each.unlink()
        self.server.reload()

        async def is_gone() -> bool:
            return {"type": APPSERVICE} not in (await self.anybody.get("/login"))["flows"]

        while not await is_gone():
            pass


class AccountManagementTests(GhostTestCase):
    registrations = (
        registration("irc"),
        registration("all", namespaces={"users": ALL_USERS}),
    )

    async def test_a_bridge_deactivates_its_users(self) -> None:
        """Without confirmation: ghosts have no password."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        bob = await self.ghost("_irc_bob")
        await bob.join(room)

        await bob.post("/account/deactivate", {"erase": True})

        self.assertEqual((await alice.members(room))[bob.user_id], "leave")
        await self.assert_refused("M_FORBIDDEN", bob.get("/account/whoami"), 403)
        await self.assert_refused("M_USER_IN_USE", self.ghost("_irc_bob"), 400)

    async def test_users_of_others_keep_their_accounts(self) -> None:
        """A namespace that covers people does not give their accounts away."""
        alice = await self.register("alice")
        puppet = self.as_user("alice", "all")
        other = await self.ghost("shared", "all")

        self.assertEqual((await puppet.get("/account/whoami"))["user_id"], alice.user_id)
        await self.assert_refused("M_FORBIDDEN", puppet.post("/account/deactivate"), 403)
        password = {"new_password": "a new password"}
        await self.assert_refused("M_FORBIDDEN", puppet.post("/account/password", password), 403)
        credentials = {"sid": "1", "client_secret": "secret"}
        await self.assert_refused("M_FORBIDDEN", puppet.post("/account/3pid/add", credentials))
        await other.post("/account/password", password)
        await other.post("/account/deactivate")

    async def test_a_ghost_may_get_a_password(self) -> None:
        """A person takes over the account that a bridge made for them."""
        bob = await self.ghost("_irc_bob")

        await bob.post("/account/password", {"new_password": "the password of _irc_bob"})

        session = await self.log_in(bob)
        self.assertEqual(session.user_id, bob.user_id)

    async def test_a_log_out_ends_the_device_that_is_named(self) -> None:
        """The token of an application service is no session."""
        bob = await self.ghost("_irc_bob")
        for device_id in ("A", "B", "C"):
            await bob.put(f"/devices/{device_id}", {})

        await self.assert_refused("M_MISSING_PARAM", bob.post("/logout"), 400)
        device = self.as_user("_irc_bob")
        device.device_id = "A"
        await device.post("/logout")
        self.assertEqual(await self._devices(bob), {"B", "C"})
        await bob.post("/logout/all")
        self.assertEqual(await self._devices(bob), set())
        await self.assert_refused("M_UNKNOWN_TOKEN", bob.post("/refresh", {"refresh_token": "x"}))

    async def test_no_request_of_a_ghost_fails_the_server(self) -> None:
        """Everything that manages an account has an answer."""
        bob = await self.ghost("_irc_bob")
        requests: tuple[tuple[str, str, Any], ...] = (
            ("GET", "/account/3pid", None),
            ("POST", "/account/3pid", {"three_pid_creds": {"sid": "1", "client_secret": "s"}}),
            ("POST", "/account/3pid/delete", {"medium": "email", "address": "a@b.org"}),
            ("POST", "/account/3pid/unbind", {"medium": "email", "address": "a@b.org"}),
            ("POST", f"/user/{quote(bob.user_id)}/openid/request_token", {}),
            ("POST", "/login", {"type": "m.login.token", "token": "?"}),
            ("GET", "/capabilities", None),
            ("GET", "/pushrules/", None),
            ("GET", "/notifications", None),
            ("GET", "/joined_rooms", None),
            ("GET", "/voip/turnServer", None),
        )
        for method, path, body in requests:
            with self.subTest(path=path):
                try:
                    await bob.request(method, f"/_matrix/client/v3{path}", body)
                except Refused as refused:
                    self.assertLess(refused.status, 500, path)
        token = await bob.request("POST", "/_matrix/client/v1/login/get_token", {})
        session = await self.anybody.post(
            "/login", {"type": "m.login.token", "token": token["login_token"]}
        )
        self.assertEqual(session["user_id"], bob.user_id)

    async def _devices(self, user: AppserviceUser) -> set[str]:
        return {each["device_id"] for each in (await user.get("/devices"))["devices"]}


class RateLimitTests(GhostTestCase):
    registrations = (registration("irc", rate_limited=False), registration("xmpp"))
    settings = {  # noqa: RUF012  # never changed
        "rate_limits": {
            name: {"per_second": 0.001, "burst": 2}
            for name in ("message", "join", "invite", "registration", "login", "to_device")
        }
    }

    async def test_a_bridge_without_limits_has_none(self) -> None:
        """Also where its requests have no user yet, and would be counted by address."""
        ghosts = [await self.ghost(f"_irc_{number}") for number in range(5)]
        room = await self.bot().create_room(public=True)
        for ghost in ghosts:
            await self.bridge().post("/login", _log_in(ghost.user_id))
            await ghost.join(room)
            await self.bot().put(f"/sendToDevice/m.test/{ghost.user_id}", {"messages": {}})
        for number in range(5):
            await ghosts[0].say(room, f"message {number}")
            await ghosts[0].put(
                f"/rooms/{quote(room)}/state/m.room.member/{quote(ghosts[0].user_id)}",
                {"membership": "join", "displayname": str(number)},
            )

    async def test_a_bridge_with_limits_is_counted_by_itself(self) -> None:
        """Its registrations do not use up those of the people who share its address."""
        for number in range(2):
            await self.ghost(f"_xmpp_{number}", "xmpp")
        await self.assert_refused("M_LIMIT_EXCEEDED", self.ghost("_xmpp_2", "xmpp"), 429)
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        ghost, bot = self.as_user("_xmpp_0", "xmpp"), self.bot("xmpp")
        await ghost.join(room)
        await bot.join(room)
        for number in range(4):
            await bot.say(room, f"message {number}")
        await ghost.say(room, "1")
        await ghost.say(room, "2")
        await self.assert_refused("M_LIMIT_EXCEEDED", ghost.say(room, "3"), 429)

    async def test_a_token_that_is_guessed_is_counted_by_address(self) -> None:
        """Nobody tries tokens without a limit."""
        login = _log_in("_irc_bot")
        for _ in range(2):
            await self.assert_refused("M_UNKNOWN_TOKEN", self.bridge("?").post("/login", login))
        await self.assert_refused("M_LIMIT_EXCEEDED", self.bridge("?").post("/login", login))
