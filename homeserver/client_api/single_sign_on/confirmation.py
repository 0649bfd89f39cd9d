"""The page of the stage `m.login.sso` of user-interactive authentication.

It says what is going to happen before the user signs in. Only its own form leads to the provider:
otherwise a thief of an access token could send the user a link past it, and a provider where the
user is signed in may not ask at all.

Spec: https://spec.matrix.org/v1.19/client-server-api/#sso-during-user-interactive-authentication
"""

import msgspec

from homeserver.accounts.interactive_auth.owner_flows import SSO
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.accounts.single_sign_on.external_accounts import ExternalAccounts
from homeserver.accounts.single_sign_on.sign_in_attempts import Purpose
from homeserver.accounts.single_sign_on.single_sign_on import SignInOption, SingleSignOn
from homeserver.protocol.errors import Forbidden, NotFound
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

FALLBACK_PATH = f"/_matrix/client/v3/auth/{SSO}/fallback/web"
MAX_FORM = 16_384  # bytes
CONFIRM_PATH = "/_matrix/sso/confirm"
OPERATIONS = {
    "deleteDevice": "log out one of your devices",
    "deleteDevices": "log out devices of yours",
    "uploadCrossSigningKeys": "replace the keys by which others recognise your devices",
    "deactivateAccount": "deactivate your account permanently",
    "generateLoginToken": "log in another device to your account",
    "add3PID": "add an e-mail address or phone number to your account",
    "changePassword": "change the password of your account",
}


class SessionQuery(msgspec.Struct):
    session: str


class SsoConfirmationApi:
    def __init__(
        self,
        single_sign_on: SingleSignOn,
        accounts: ExternalAccounts,
        uia: UserInteractiveAuth,
        pages: Pages,
    ) -> None:
        self._sso = single_sign_on
        self._accounts = accounts
        self._uia = uia
        self._pages = pages

    def routes(self) -> list[Route]:
        return [
            Route("GET", FALLBACK_PATH, self.show_operation, Auth.NONE, limit="lookup", page=True),
            Route(
                "POST",
                CONFIRM_PATH,
                self.begin_confirmation,
                Auth.NONE,
                limit="login",
                max_body=MAX_FORM,
                page=True,
            ),
        ]

    async def show_operation(self, query: SessionQuery) -> Response:
        """The operation that waits for the user, and the providers to sign in with."""
        session = await self._uia.get_session(query.session)
        options = await self._options(session.user_id)
        operation = session.operation.partition(" ")[0]
        attempt = self._sso.attempts.new("", Purpose.CONFIRMATION, query.session)
        return self._pages.page(
            "sso/confirm",
            allowed=Allowed(form="'self'"),
            headers={"Set-Cookie": self._sso.attempts.cookie(attempt)},
            action=self._sso.attempts.base_path + CONFIRM_PATH,
            state=attempt.state,
            user_id=session.user_id,
            operation=OPERATIONS.get(operation, "change your account"),
            options=options,
        )

    async def begin_confirmation(self, request: Request) -> Response:
        """The user wants the operation: send the browser to the provider."""
        form = read_form(request)
        attempt = self._sso.attempts.find(form.get("state", ""), request.header(b"cookie"))
        if attempt.purpose != Purpose.CONFIRMATION or attempt.identity is not None:
            raise NotFound("This page is no longer valid")
        session = await self._uia.get_session(attempt.target)
        provider = form.get("provider", "")
        if provider not in {each.id for each in await self._options(session.user_id)}:
            raise NotFound("The account has no identity at this provider")
        begun = await self._sso.proceed(msgspec.structs.replace(attempt, provider=provider))
        headers = {"Set-Cookie": begun.cookie, "Refresh": f"0; url={begun.location}"}
        return self._pages.page("sso/forward", headers=headers, url=begun.location)

    async def _options(self, user_id: str | None) -> list[SignInOption]:
        """The providers where the user has an identity. Raises `Forbidden` if there are none."""
        linked = set() if user_id is None else await self._accounts.providers_of(user_id)
        options = [each for each in self._sso.options if each.id in linked]
        if not options:
            raise Forbidden("This cannot be confirmed by single sign-on")
        return options
