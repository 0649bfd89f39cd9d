"""Sessions: refreshing, revoking, and what the rest of the API does with their tokens."""

from typing import Any

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from homeserver.protocol.signing.unpadded_base64 import encode_base64
from tests.api.oauth.support import API, BASE, OAuthActor, OAuthTestCase
from tests.support.refused import Refused


class SessionTestCase(OAuthTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.phone = await self.log_in_client()

    async def whoami(self, actor: OAuthActor) -> Any:
        return await actor.get("/account/whoami")

    async def is_usable(self, token: str) -> bool:
        """Whether the server accepts an access token."""
        self.phone.token = token
        try:
            await self.whoami(self.phone)
        except Refused:
            return False
        return True

    async def assert_ended(self, actor: OAuthActor) -> None:
        """The session and its device exist no more."""
        await self.assert_refused("M_UNKNOWN_TOKEN", self.whoami(actor), 401)
        devices = (await self.alice.get("/devices"))["devices"]
        self.assertNotIn(actor.device_id, [device["device_id"] for device in devices])


class RefreshTests(SessionTestCase):
    async def test_the_next_tokens_replace_the_former(self) -> None:
        """A stolen token is worthless after minutes."""
        tokens = await self.refresh(self.phone.refresh_token)

        self.assertEqual(tokens["token_type"], "Bearer")
        self.assertEqual(tokens["scope"], f"{API} urn:matrix:client:device:ABCDEFGHIJ")
        former, self.phone.token = self.phone.token, tokens["access_token"]
        await self.whoami(self.phone)
        self.phone.token = former
        await self.assert_refused("M_UNKNOWN_TOKEN", self.whoami(self.phone))

    async def test_a_lost_response_can_be_repeated(self) -> None:
        """A phone in a tunnel does not log its user out."""
        await self.refresh(self.phone.refresh_token)
        await self.refresh(self.phone.refresh_token)
        tokens = await self.refresh(self.phone.refresh_token)

        self.phone.token = tokens["access_token"]
        await self.whoami(self.phone)
        await self.refresh(tokens["refresh_token"])

    async def test_an_old_token_that_comes_back_ends_the_session(self) -> None:
        """Somebody has a copy: neither the thief nor the owner can go on unnoticed."""
        first = self.phone.refresh_token
        second = (await self.refresh(first))["refresh_token"]
        third = await self.refresh(second)
        self.phone.token = third["access_token"]
        await self.whoami(self.phone)

        await self.assert_error("invalid_grant", self.refresh(first))

        await self.assert_ended(self.phone)
        await self.assert_error("invalid_grant", self.refresh(third["refresh_token"]))

    async def test_a_token_that_was_replaced_by_a_repetition_ends_nothing(self) -> None:
        """Two tabs that refresh at the same time do not log the user out in both."""
        lost = await self.refresh(self.phone.refresh_token)
        tokens = await self.refresh(self.phone.refresh_token)

        await self.assert_error("invalid_grant", self.refresh(lost["refresh_token"]))

        self.phone.token = tokens["access_token"]
        await self.whoami(self.phone)

    async def test_made_up_tokens_are_refused(self) -> None:
        """Nobody ends a session, or causes an error, by guessing."""
        family = self.phone.refresh_token.partition(".")[0]
        for token in ("x", "a.0.b", f"{family[:-1]}.0.x", "." * 9, "ä.0.x", f"{family}.x.y", "\0"):
            with self.assertRaises(Exception):  # noqa: B017
                await self.refresh(token)

        await self.whoami(self.phone)

    async def test_another_client_cannot_refresh(self) -> None:
        """A token is worthless without its client."""
        other = (await self.register_client(client_name="Other"))["client_id"]

        await self.assert_error(
            "invalid_grant", self.refresh(self.phone.refresh_token, client_id=other)
        )
        await self.refresh(self.phone.refresh_token)

    async def test_the_two_apis_do_not_mix(self) -> None:
        """Each API refreshes its own tokens only."""
        body = {"refresh_token": self.phone.refresh_token}
        await self.assert_refused("M_UNKNOWN_TOKEN", self.anybody.post("/refresh", body), 401)

        login = await self.anybody.post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": "the password of alice",
                "refresh_token": True,
            },
        )
        await self.assert_error("invalid_grant", self.refresh(login["refresh_token"]))
        await self.form("revoke", token=login["access_token"])
        self.anybody.token = login["access_token"]
        await self.anybody.get("/account/whoami")

    async def test_concurrent_refreshes_leave_one_session(self) -> None:
        """Requests that race do not break anything."""
        attempts = [
            Deferred.fromCoroutine(self.refresh(self.phone.refresh_token)) for _ in range(5)
        ]
        results = await gatherResults(attempts)

        usable = [await self.is_usable(tokens["access_token"]) for tokens in results]
        self.assertEqual(usable.count(True), 1)

    async def test_a_locked_account_keeps_its_session(self) -> None:
        """A client that could not refresh would delete all that it has."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET is_locked = true")

        tokens = await self.refresh(self.phone.refresh_token)

        self.phone.token = tokens["access_token"]
        await self.assert_refused("M_USER_LOCKED", self.whoami(self.phone), 401)


class EndTests(SessionTestCase):
    async def test_either_token_ends_the_session(self) -> None:
        """A user who logs out is logged out, and the device is gone."""
        other = await self.log_in_client("ANOTHER")

        self.assertEqual(await self.form("revoke", token=self.phone.token or ""), {})
        await self.assert_ended(self.phone)
        await self.whoami(other)
        await self.form("revoke", token=other.refresh_token, token_type_hint="access_token")
        await self.assert_ended(other)

    async def test_revoking_what_does_not_exist_is_no_error(self) -> None:
        """A client that repeats its log-out is done."""
        for token in (self.phone.refresh_token, self.phone.refresh_token, "unknown", "a" * 9_999):
            self.assertEqual(await self.form("revoke", token=token), {})

    async def test_a_finder_of_a_token_may_revoke_it(self) -> None:
        """A tool that finds a token in public ends its session, without knowing the client."""
        await self.form("revoke", token=self.phone.token or "", client_id="unknown")

        await self.assert_ended(self.phone)

    async def test_the_legacy_log_out_works(self) -> None:
        """A client that mixes the APIs up is logged out, not left with a session."""
        await self.phone.post("/logout")

        await self.assert_ended(self.phone)
        await self.assert_error("invalid_grant", self.refresh(self.phone.refresh_token))

    async def test_a_legacy_log_in_replaces_the_session_of_its_device(self) -> None:
        """A device has one session, whichever API made it."""
        login = await self.anybody.post(
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "alice"},
                "password": "the password of alice",
                "device_id": self.phone.device_id,
            },
        )

        await self.assert_refused("M_UNKNOWN_TOKEN", self.whoami(self.phone))
        await self.assert_error("invalid_grant", self.refresh(self.phone.refresh_token))
        self.anybody.token = login["access_token"]
        await self.anybody.get("/account/whoami")

    async def test_a_new_session_replaces_that_of_the_device(self) -> None:
        """A user who signs in again keeps the device, with its keys."""
        again = await self.log_in_client()

        await self.whoami(again)
        await self.assert_refused("M_UNKNOWN_TOKEN", self.whoami(self.phone))
        await self.assert_error("invalid_grant", self.refresh(self.phone.refresh_token))
        self.assertEqual(len((await self.alice.get("/devices"))["devices"]), 2)

    async def test_ends_survive_a_restart(self) -> None:
        """What was ended stays so, and what was not goes on."""
        other = await self.log_in_client("ANOTHER")
        await self.form("revoke", token=self.phone.refresh_token)

        await self.restart_server(self.phone, other, self.alice)

        await self.assert_ended(self.phone)
        await self.refresh(other.refresh_token)


class RaceTests(OAuthTestCase):
    async def test_refreshing_races_with_the_end_of_the_session(self) -> None:
        """A client that is being logged out learns it, and no request waits for another one."""
        for number in range(12):
            phone = await self.log_in_client(f"PHONE{number}")
            attempts = [
                self.refresh(phone.refresh_token),
                self.refresh(phone.refresh_token),
                self.form("revoke", token=phone.refresh_token),
                self.refresh(phone.refresh_token),
            ]
            results = await DeferredList(
                [Deferred.fromCoroutine(attempt) for attempt in attempts], consumeErrors=True
            )
            for succeeded, result in results:
                if not succeeded:
                    self.assertEqual(result.value.body.get("error"), "invalid_grant", result)
        self.assertEqual(len((await self.alice.get("/devices"))["devices"]), 1)

    async def test_the_first_use_of_a_token_races_with_the_next_refresh(self) -> None:
        """A client that does several things at once has no error."""
        phone = await self.log_in_client()
        tokens = await self.refresh(phone.refresh_token)
        for number in range(60):
            phone.token = tokens["access_token"]
            refreshing = Deferred.fromCoroutine(self.refresh(tokens["refresh_token"]))
            await deferLater(reactor, number % 20 / 2_000, lambda: None)
            used = Deferred.fromCoroutine(phone.get("/account/whoami"))
            tokens, _ = await gatherResults([refreshing, used], consumeErrors=True)


class ConfirmationTests(SessionTestCase):
    async def test_what_needs_a_password_is_refused(self) -> None:
        """These clients send their users to the account page, even with the right password."""
        identifier = {"type": "m.id.user", "user": "alice"}
        auth = {"type": "m.login.password", "identifier": identifier, "password": "the password"}
        for method, path, body in (
            ("POST", "/account/password", {"new_password": "a new password"}),
            ("POST", "/account/deactivate", {}),
            ("DELETE", f"/devices/{self.alice.device_id}", {}),
            ("POST", "/delete_devices", {"devices": [self.alice.device_id]}),
            ("POST", "/account/3pid/add", {"client_secret": "a", "sid": "b"}),
            ("POST", "/account/3pid", {"three_pid_creds": {"client_secret": "a", "sid": "b"}}),
        ):
            for extra in ({}, {"auth": auth}):
                attempt = self.phone.request(method, f"/_matrix/client/v3{path}", {**body, **extra})
                await self.assert_refused("M_FORBIDDEN", attempt, 403)
        token = self.phone.request("POST", "/_matrix/client/v1/login/get_token", {})
        await self.assert_refused("M_FORBIDDEN", token, 403)
        await self.alice.get("/account/whoami")

    async def test_capabilities_say_so(self) -> None:
        """A client does not offer what it cannot do."""
        for actor, enabled in ((self.phone, False), (self.alice, True)):
            capabilities = (await actor.get("/capabilities"))["capabilities"]
            for name in ("m.change_password", "m.get_login_token"):
                self.assertEqual(capabilities[name], {"enabled": enabled})
        self.assertEqual(capabilities["m.set_displayname"], {"enabled": True})

    async def test_cross_signing_keys_are_replaced_after_a_permission(self) -> None:
        """A thief of a token cannot replace the identity of a user; the user can, on a page."""
        await self.upload("a")
        await self.upload("a")

        refused = await self.assert_refused("", self.upload("b"), 401)

        stages = [flow["stages"] for flow in refused.body["flows"]]
        self.assertEqual(stages, [["m.oauth"], ["org.matrix.cross_signing_reset"]])
        url = f"{BASE}/_matrix/account?action=org.matrix.cross_signing_reset"
        self.assertEqual(refused.body["params"]["m.oauth"], {"url": url})
        self.assertEqual(refused.body["params"]["org.matrix.cross_signing_reset"], {"url": url})
        session = {"session": refused.body["session"]}
        again = await self.assert_refused("M_FORBIDDEN", self.upload("b", auth=session), 401)
        self.assertEqual(again.body["session"], session["session"])
        password = {**session, "type": "m.login.password", "password": "the password of alice"}
        await self.assert_refused("M_FORBIDDEN", self.upload("b", auth=password), 401)

        await self.permit()
        await self.phone.post("/keys/device_signing/upload", {"auth": session})

        await self.assert_refused("", self.upload("c"), 401)

    async def test_a_permission_is_enough_without_an_authentication_session(self) -> None:
        """Clients repeat the request as it was."""
        await self.upload("a")
        await self.permit()

        await self.upload("b")

        await self.assert_refused("", self.upload("c"), 401)

    async def permit(self) -> None:
        """Permit the replacement, as the page does."""
        resets = self.server.parts.accounts.cross_signing_resets
        assert resets is not None
        await resets.allow(self.alice.user_id)

    async def upload(self, letter: str, **body: Any) -> Any:
        """Upload a master key of this letter."""
        key = encode_base64(letter.encode() * 32)
        master = {
            "user_id": self.alice.user_id,
            "usage": ["master"],
            "keys": {f"ed25519:{key}": key},
        }
        return await self.phone.post("/keys/device_signing/upload", {"master_key": master, **body})
