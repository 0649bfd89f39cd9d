"""Registration: names, flows, guests, and asking twice."""

from types import SimpleNamespace
from typing import Any

from homeserver.accounts.interactive_auth.user_interactive_auth import AuthenticationNeeded
from homeserver.accounts.registration.registration_flow import RegistrationRequest
from homeserver.config.sections.accounts import RegistrationSettings
from homeserver.storage.accounts.accepted_policies import accepted_policies
from homeserver.storage.accounts.registration_tokens import insert_registration_token
from tests.accounts.support import ALICE, PASSWORD, TERMS, AccountsTestCase

DUMMY = {"type": "m.login.dummy"}


class SignUpTestCase(AccountsTestCase):
    async def needed(self, request: RegistrationRequest) -> dict[str, Any]:
        """The error of a registration that needs more stages."""
        error = await self.assertFailure(
            self.started(self.registration_flow.register(request)), AuthenticationNeeded
        )
        self.assertEqual(error.status, 401)
        body: dict[str, Any] = error.body()
        return body


class OpenRegistrationTests(SignUpTestCase):
    async def test_the_flows_are_sent_first(self) -> None:
        """Clients get the flows with an empty request."""
        body = await self.needed(RegistrationRequest())

        self.assertEqual(body["flows"], [{"stages": ["m.login.dummy"]}])
        self.assertEqual((body["params"], body["completed"]), ({}, []))
        self.assertTrue(body["session"])

    async def test_a_session_makes_an_account_and_logs_it_in(self) -> None:
        """From nothing to a usable account in two requests."""
        session = (await self.needed(RegistrationRequest(username="Alice")))["session"]
        request = RegistrationRequest(
            auth=DUMMY | {"session": session},
            username="Alice",
            password=PASSWORD,
            device_id="PHONE",
        )

        user_id, made = await self.registration_flow.register(request)

        assert made is not None
        self.assertEqual((user_id, made.device_id), (ALICE, "PHONE"))
        self.assertEqual((await self.caller(made)).user_id, ALICE)

    async def test_a_stage_may_come_with_the_first_request(self) -> None:
        """Scripts register in one request."""
        user_id, _ = await self.registration_flow.register(
            RegistrationRequest(auth=DUMMY, username="alice")
        )

        self.assertEqual(user_id, ALICE)

    async def test_a_request_of_the_session_alone_means_what_it_began_with(self) -> None:
        """Some clients repeat nothing but the session."""
        request = RegistrationRequest(username="alice", password=PASSWORD, device_id="PHONE")
        session = (await self.needed(request))["session"]

        user_id, made = await self.registration_flow.register(
            RegistrationRequest(auth=DUMMY | {"session": session})
        )

        assert made is not None
        self.assertEqual((user_id, made.device_id), (ALICE, "PHONE"))
        await self.credentials.check_password(ALICE, PASSWORD)

    async def test_a_client_that_lost_the_response_may_repeat_the_request(self) -> None:
        """A user does not get the error that their own name is taken after a network failure."""
        request = RegistrationRequest(username="alice", password=PASSWORD)
        session = (await self.needed(request))["session"]
        again = RegistrationRequest(
            auth=DUMMY | {"session": session}, username="alice", password=PASSWORD
        )
        await self.registration_flow.register(again)

        user_id, made = await self.registration_flow.register(again)

        assert made is not None
        self.assertEqual(user_id, ALICE)
        self.assertEqual((await self.caller(made)).user_id, ALICE)

    async def test_without_a_name_the_account_gets_a_number(self) -> None:
        """A name is not needed to begin."""
        first, _ = await self.registration_flow.register(RegistrationRequest(auth=DUMMY))
        second, _ = await self.registration_flow.register(RegistrationRequest(auth=DUMMY))

        self.assertRegex(first, r"^@\d+:example\.org$")
        self.assertNotEqual(first, second)

    async def test_a_number_that_a_user_chose_is_skipped(self) -> None:
        """Names that look like numbers cannot block registration."""
        await self.registration_flow.register(RegistrationRequest(auth=DUMMY, username="1"))

        user_id, _ = await self.registration_flow.register(RegistrationRequest(auth=DUMMY))

        self.assertEqual(user_id, "@2:example.org")

    async def test_inhibited_log_in_makes_an_account_only(self) -> None:
        """Tools that make accounts for others leave no session behind."""
        user_id, session = await self.registration_flow.register(
            RegistrationRequest(auth=DUMMY, username="alice", inhibit_login=True)
        )

        self.assertEqual((user_id, session), (ALICE, None))
        self.assertEqual(await self.devices.all_of(ALICE), [])

    async def test_errors_come_before_authentication(self) -> None:
        """A user does not solve a captcha for a name that is taken."""
        await self.user()

        for request, errcode in (
            (RegistrationRequest(username="alice"), "M_USER_IN_USE"),
            (RegistrationRequest(username="al ice"), "M_INVALID_USERNAME"),
            (RegistrationRequest(username=""), "M_INVALID_USERNAME"),
            (RegistrationRequest(username="a" * 255), "M_INVALID_USERNAME"),
            (RegistrationRequest(username="bob", password="short"), "M_WEAK_PASSWORD"),
            (RegistrationRequest(username="bob", device_id=""), "M_INVALID_PARAM"),
        ):
            await self.refused(self.registration_flow.register(request), errcode, 400)

    async def test_names_of_appservices_are_reserved(self) -> None:
        """A user cannot impersonate a bridged user."""
        await self.refused(
            self.registration_flow.register(RegistrationRequest(username="irc_bob")),
            "M_EXCLUSIVE",
            400,
        )
        await self.refused(self.registration_flow.check_available("irc_bob"), "M_EXCLUSIVE", 400)

    async def test_a_deactivated_name_stays_taken(self) -> None:
        """A new user cannot take over the identity of a deactivated one."""
        await self.user()
        await self.deactivation.deactivate(ALICE, erase=False)

        await self.refused(self.registration_flow.check_available("alice"), "M_USER_IN_USE", 400)


class GuestTests(SignUpTestCase):
    async def test_a_guest_is_known_as_one(self) -> None:
        """The restrictions of guests need the account to be marked as one."""
        session = await self.registration_flow.register_guest("A browser")

        caller = await self.caller(session)

        self.assertTrue(caller.is_guest)
        self.assertRegex(caller.user_id, r"^@\d+:example\.org$")

    async def test_a_guest_can_become_a_user(self) -> None:
        """Rooms that were joined as a guest are kept."""
        guest = await self.caller(session := await self.registration_flow.register_guest(None))
        name = guest.user_id[1:].partition(":")[0]
        request = RegistrationRequest(
            auth=DUMMY,
            username=name,
            password=PASSWORD,
            guest_access_token=session.tokens.access_token,
        )

        user_id, made = await self.registration_flow.register(request)

        assert made is not None
        self.assertEqual(user_id, guest.user_id)
        self.assertFalse((await self.caller(made)).is_guest)
        await self.credentials.check_password(user_id, PASSWORD)

    async def test_only_the_guest_of_the_token_can_be_upgraded(self) -> None:
        """The token of a guest opens that guest's account, nothing else."""
        await self.user()
        guest = await self.registration_flow.register_guest(None)
        request = RegistrationRequest(
            auth=DUMMY, username="alice", guest_access_token=guest.tokens.access_token
        )

        await self.refused(self.registration_flow.register(request), "M_FORBIDDEN", 403)


class ClosedRegistrationTests(SignUpTestCase):
    registration_settings = RegistrationSettings(enabled=False)

    async def test_disabled_registration_is_refused(self) -> None:
        """A private server stays private."""
        await self.refused(
            self.registration_flow.register(RegistrationRequest(auth=DUMMY, username="alice")),
            "M_FORBIDDEN",
            403,
        )
        await self.refused(self.registration_flow.register_guest(None), "M_FORBIDDEN", 403)
        await self.refused(self.registration_flow.check_available("alice"), "M_FORBIDDEN", 403)

    async def test_appservices_make_their_users_all_the_same(self) -> None:
        """A bridge needs accounts on a private server too."""
        bridge = SimpleNamespace(
            id="irc",
            sender="@irc_bot:example.org",
            rate_limited=True,
            covers_user=lambda user: user.startswith("@irc_"),
        )
        request = RegistrationRequest(username="irc_bob", inhibit_login=True)

        user_id, _ = await self.registration_flow.register_for_appservice(bridge, request)

        self.assertEqual(user_id, "@irc_bob:example.org")
        other = RegistrationRequest(username="alice")
        await self.refused(
            self.registration_flow.register_for_appservice(bridge, other), "M_EXCLUSIVE", 400
        )


class RegistrationByTokenTests(SignUpTestCase):
    registration_settings = RegistrationSettings(enabled=True, token_required=True, terms=TERMS)

    def auth(self, session: str | None = None, token: str = "friend") -> dict[str, Any]:
        """The stage with a registration token."""
        return {"type": "m.login.registration_token", "token": token, "session": session}

    async def test_both_stages_are_required_with_their_policies(self) -> None:
        """The client shows the policies beside the field for the token."""
        body = await self.needed(RegistrationRequest())

        stages = ["m.login.registration_token", "m.login.terms"]
        self.assertEqual(body["flows"], [{"stages": stages}])
        policy = body["params"]["m.login.terms"]["policies"]["privacy"]
        self.assertEqual(policy["version"], "1.2")
        self.assertEqual(policy["en"]["url"], "https://example.org/privacy")

    async def test_a_token_lets_as_many_in_as_it_allows(self) -> None:
        """An invitation for one is not an invitation for all."""
        await self.db.run(insert_registration_token, "friend", 1, None)
        alice, bob = [
            RegistrationRequest(
                username=name,
                auth={
                    "type": "m.login.terms",
                    "session": (
                        await self.needed(RegistrationRequest(username=name, auth=self.auth()))
                    )["session"],
                },
            )
            for name in ("alice", "bob")
        ]

        await self.registration_flow.register(alice)

        self.assertEqual(await self.db.run(accepted_policies, ALICE), [("privacy", "1.2")])
        self.assertFalse(await self.registration_tokens.is_valid("friend"))
        await self.refused(self.registration_flow.register(bob), "M_FORBIDDEN", 403)

    async def test_an_unknown_or_expired_token_does_not_do(self) -> None:
        """Guessing does not help, and old invitations end."""
        await self.db.run(insert_registration_token, "old", None, 1_600_000_000_000)

        for token in ("guess", "old", "no\0", "x" * 65):
            body = await self.needed(RegistrationRequest(auth=self.auth(token=token)))
            self.assertEqual((body["errcode"], body["completed"]), ("M_FORBIDDEN", []))

    async def test_stages_out_of_order_do_not_count(self) -> None:
        """A flow is a sequence, by the specification."""
        body = await self.needed(RegistrationRequest(auth={"type": "m.login.terms"}))

        self.assertEqual(body["completed"], [])
        self.assertIn("order", body["error"])
