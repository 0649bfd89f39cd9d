"""A client of the OAuth 2.0 API, and a user with a browser."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from twisted.internet import reactor

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.protocol.oauth.code_challenges import challenge_of
from tests.api.account_pages.support import BASE, Browser, Page, PagesTestCase
from tests.support.actors import Actor
from tests.support.refused import Refused

OAUTH = "/_matrix/oauth2"
API = "urn:matrix:client:api:*"
VERIFIER = "v" * 43
REDIRECT_URI = "https://app.example.com/callback"
WEB_CLIENT: dict[str, Any] = {
    "client_name": "My App",
    "client_uri": "https://example.com/",
    "tos_uri": "https://example.com/tos.html",
    "redirect_uris": [REDIRECT_URI],
    "token_endpoint_auth_method": "none",
    "response_types": ["code"],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ],
    "application_type": "web",
}


class _NoCookie:
    def header(self, name: bytes) -> None:
        return None


class OAuthTestCase(PagesTestCase):
    """Alice, who is signed in with her browser, and a registered client."""

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        await self.sign_in(self.alice)
        self.client_id: str = (await self.register_client())["client_id"]

    async def sign_in(self, actor: Actor, browser: Browser | None = None) -> None:
        """Sign in with a browser."""
        sessions = BrowserSessions(self.server.parts.db, reactor, BASE)
        cookie = await sessions.open(actor.user_id, _NoCookie())
        name, _, value = cookie.partition(";")[0].partition("=")
        (browser or self.browser).cookies[name] = value

    async def register_client(self, **changes: Any) -> Any:
        """The response to the registration of a client."""
        return await self.anybody.request("POST", f"{OAUTH}/register", WEB_CLIENT | changes)

    async def form(self, endpoint: str, **parameters: str) -> Any:
        """The response of an endpoint to a form."""
        body = urlencode(parameters).encode()
        return await self.anybody.request("POST", f"{OAUTH}/{endpoint}", body)

    async def assert_error(self, error: str, attempt: Any, status: int = 400) -> None:
        """The attempt fails with this error of OAuth."""
        try:
            answer = await attempt
        except Refused as refused:
            self.assertEqual((refused.status, refused.body["error"]), (status, error))
        else:
            self.fail(f"{error} was expected, but the answer is {answer}")

    def request(self, **changes: str | None) -> str:
        """The path of an authorisation request; a change to `None` leaves a parameter out."""
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT_URI,
            "scope": f"{API} urn:matrix:client:device:ABCDEFGHIJ",
            "state": "a state",
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            **changes,
        }
        present = {name: value for name, value in parameters.items() if value is not None}
        return f"{OAUTH}/authorize?{urlencode(present)}"

    async def decide(self, page: Page, decision: str = "allow", number: int = 0) -> Page:
        """Click one of the buttons of a page."""
        form, fields = page.forms()[number]
        return await self.browser.post(form["action"], {**fields, "decision": decision})

    async def authorize(self, **changes: str | None) -> dict[str, str]:
        """What the client gets when the user has permitted it."""
        page = await self.browser.get(self.request(**changes))
        self.assertEqual(page.status, 200, page.text)
        return outcome_of(await self.decide(page))

    async def exchange(self, code: str, **changes: str) -> Any:
        """The tokens for a code."""
        parameters = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "client_id": self.client_id,
            "code_verifier": VERIFIER,
        }
        return await self.form("token", **(parameters | changes))

    async def log_in_client(self, device_id: str = "ABCDEFGHIJ") -> "OAuthActor":
        """A session of the client on a device."""
        scope = f"{API} urn:matrix:client:device:{device_id}"
        tokens = await self.exchange((await self.authorize(scope=scope))["code"])
        actor = OAuthActor(
            self._http, self.url, self.alice.user_id, device_id, tokens["access_token"]
        )
        actor.refresh_token = tokens["refresh_token"]
        return actor

    async def refresh(self, token: str, **changes: str) -> Any:
        """The next tokens."""
        parameters = {
            "grant_type": "refresh_token",
            "refresh_token": token,
            "client_id": self.client_id,
        }
        return await self.form("token", **(parameters | changes))


class OAuthActor(Actor):
    """A device with a session of the OAuth 2.0 API."""

    refresh_token: str


def outcome_of(page: Page) -> dict[str, str]:
    """The parameters with which a page redirects to the client."""
    assert page.location is not None, page.text
    parts = urlsplit(page.location)
    return dict(parse_qsl(parts.fragment or parts.query))


def json_of(page: Page) -> Any:
    """The body of a response as JSON."""
    return msgspec.json.decode(page.text)
