"""Captchas: a stage of registration that asks another service."""

from typing import Any

from twisted.web.http_headers import Headers

from homeserver.accounts.interactive_auth.user_interactive_auth import AuthenticationNeeded
from homeserver.accounts.registration.registration_flow import RegistrationRequest
from homeserver.config.sections.accounts import RecaptchaSettings, RegistrationSettings
from homeserver.config.settings import Settings
from homeserver.outbound.http_client import OutboundError, OutboundResponse
from homeserver.outbound.recaptcha import Recaptcha
from tests.accounts.api import ApiTestCase
from tests.accounts.support import AccountsTestCase

SOLVED = {"type": "m.login.recaptcha", "response": "I see three bicycles"}
WRONG = {"type": "m.login.recaptcha", "response": "I see no bicycle"}


class CaptchaTestCase(AccountsTestCase):
    async def needed(self, auth: dict[str, Any]) -> dict[str, Any]:
        """The error of a registration that needs more stages."""
        request = RegistrationRequest(username="alice", auth=auth)
        error = await self.assertFailure(
            self.started(self.registration_flow.register(request)), AuthenticationNeeded
        )
        body: dict[str, Any] = error.body()
        return body


class RequiredCaptchaTests(CaptchaTestCase):
    registration_settings = RegistrationSettings(enabled=True, recaptcha_required=True)

    async def test_the_flow_names_the_captcha_and_its_key(self) -> None:
        """Clients show the puzzle with the site key."""
        body = await self.needed({})

        self.assertEqual(body["flows"], [{"stages": ["m.login.recaptcha"]}])
        self.assertEqual(body["params"], {"m.login.recaptcha": {"public_key": "site key"}})

    async def test_who_solves_it_gets_an_account(self) -> None:
        """People can do it."""
        user_id, _ = await self.registration_flow.register(
            RegistrationRequest(username="alice", auth=SOLVED)
        )

        self.assertEqual(user_id, "@alice:example.org")

    async def test_a_wrong_solution_can_be_tried_again(self) -> None:
        """Bicycles are hard to see."""
        body = await self.needed(WRONG)

        self.assertEqual((body["errcode"], body["completed"]), ("M_CAPTCHA_INVALID", []))
        again = SOLVED | {"session": body["session"]}
        await self.registration_flow.register(RegistrationRequest(username="alice", auth=again))

    async def test_a_captcha_without_a_solution_is_malformed(self) -> None:
        """The client gets an error that names the missing member."""
        request = RegistrationRequest(username="alice", auth={"type": "m.login.recaptcha"})

        await self.refused(self.registration_flow.register(request), "M_BAD_JSON", 400)


class UnwantedCaptchaTests(CaptchaTestCase):
    async def test_a_captcha_outside_the_flows_can_be_solved_without_effect(self) -> None:
        """A client may complete a stage outside the flows; it sees what remains."""
        body = await self.needed(SOLVED)

        self.assertEqual(body["completed"], ["m.login.recaptcha"])
        self.assertEqual(body["flows"], [{"stages": ["m.login.dummy"]}])


class CaptchaPageTests(ApiTestCase):
    registration_settings = RegistrationSettings(enabled=True, recaptcha_required=True)

    async def test_the_puzzle_can_be_solved_on_a_page(self) -> None:
        """Clients without captchas open a browser."""
        import treq

        status, body = await self.request("POST", "/_matrix/client/v3/register", {})
        self.assertEqual(status, 401)
        page = f"{self.url}/_matrix/client/v3/auth/m.login.recaptcha/fallback/web"
        query = {"session": body["session"]}

        shown = await treq.get(page, params=query, pool=self.pool)
        content = await shown.text()
        form = {"g-recaptcha-response": "I see three bicycles"}
        done = await treq.post(page, params=query, data=form, pool=self.pool)

        self.assertIn('data-sitekey="site key"', content)
        [policy] = shown.headers.getRawHeaders("Content-Security-Policy")
        self.assertIn("frame-src https://www.recaptcha.net/recaptcha/;", policy)
        self.assertEqual(done.code, 200)
        await done.content()
        response = await self.ok(
            "POST", "/_matrix/client/v3/register", {"auth": {"session": body["session"]}}
        )
        self.assertIn("user_id", response)


class Service:
    """The service that makes puzzles, at the other end of the client."""

    def __init__(self, response: bytes | None) -> None:
        self.answer = response
        self.requests: list[tuple[str, dict[str, str]]] = []

    async def post_form(self, url: str, form: dict[str, str]) -> OutboundResponse:
        self.requests.append((url, form))
        if self.answer is None:
            raise OutboundError("nobody there")
        return OutboundResponse(200, Headers(), self.answer, url)


class VerificationTests(AccountsTestCase):
    settings = RecaptchaSettings(
        verify_url="https://captcha.example/verify", public_key="site key", private_key="hush"
    )

    async def is_solved(self, response: str) -> bool:
        self.recaptcha = Recaptcha(self.service, self.settings)  # type: ignore[arg-type]
        return await self.recaptcha.is_solved(response)

    async def test_the_request_to_the_service_has_the_secret_key(self) -> None:
        """It knows by the key whose puzzle it was."""
        self.service = Service(b'{"success": true, "hostname": "example.org"}')

        self.assertTrue(await self.is_solved("three"))

        form = {"secret": "hush", "response": "three"}
        self.assertEqual(self.service.requests, [("https://captcha.example/verify", form)])

    async def test_its_no_is_a_no(self) -> None:
        """Programs stay out."""
        self.service = Service(b'{"success": false, "error-codes": ["timeout-or-duplicate"]}')

        self.assertFalse(await self.is_solved("three"))

    async def test_without_a_clear_response_the_stage_fails(self) -> None:
        """An unavailable service completes no stage; the client may try again later."""
        for response in (None, b"", b"<html>", b"{}", b'{"success": "yes"}', b"\xff"):
            self.service = Service(response)
            await self.refused(self.is_solved("three"), "M_UNKNOWN", 503)


class SettingsTests(AccountsTestCase):
    def test_a_captcha_cannot_be_required_without_keys(self) -> None:
        """The operator learns at the start, not from people who cannot register."""
        with self.assertRaisesRegex(ValueError, "recaptcha has no keys"):
            Settings(registration=RegistrationSettings(recaptcha_required=True))
        with self.assertRaisesRegex(ValueError, "public_key and a private_key"):
            RecaptchaSettings(public_key="site key")
