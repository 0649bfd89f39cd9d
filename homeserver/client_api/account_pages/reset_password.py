"""The pages for a new password, for users who have forgotten theirs and have given an address.

A mail is sent to the address; the link in it has a button that confirms the request. Whether an
account has the address is said in the mail only. The form for the new password has the secret of
the request, so a reader of the mail can confirm it, but not choose the password.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
"""

from collections.abc import Mapping

from homeserver.accounts.browser_sessions.anonymous_forms import AnonymousForms
from homeserver.accounts.browser_sessions.browser_sessions import (
    RESET_PASSWORD,
    check_target,
    location_of,
    sign_in_location,
)
from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY
from homeserver.accounts.interactive_auth.user_interactive_auth import AuthenticationNeeded
from homeserver.accounts.login.password_reset import ChangePassword, PasswordReset
from homeserver.client_api.account_pages.problems import problem_text
from homeserver.client_api.account_pages.sign_in import SignInQuery
from homeserver.client_api.accounts.stage_forms import StageForms, credentials_in
from homeserver.protocol.errors import InvalidParam, MatrixError
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.web.addresses import network_of
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

NEW_PASSWORD = f"{RESET_PASSWORD}/new"
OPERATION = "changePassword"
SESSION = "session"


class ResetPasswordApi:
    """`base_path` is what a proxy has before the paths of this server."""

    def __init__(
        self,
        reset: PasswordReset,
        stage_forms: StageForms,
        forms: AnonymousForms,
        pages: Pages,
        base_path: str,
    ) -> None:
        self._reset = reset
        self._stage_forms = stage_forms
        self._forms = forms
        self._pages = pages
        self._base_path = base_path

    def routes(self) -> list[Route]:
        asked, sent = RESET_PASSWORD, NEW_PASSWORD
        return [
            Route("GET", asked, self.show_reset, Auth.NONE, limit="lookup", page=True),
            Route("POST", asked, self.send_mail, Auth.NONE, limit="validation", page=True),
            Route("POST", sent, self.set_new_password, Auth.NONE, limit="login", page=True),
        ]

    async def show_reset(self, query: SignInQuery, request: Request) -> Response:
        """The form for an address."""
        return self._page(request, check_target(query.target), "address")

    async def send_mail(self, query: SignInQuery, request: Request) -> Response:
        """Send a mail, and show the form for a new password."""
        target = check_target(query.target)
        form = read_form(request)
        try:
            self._forms.check(request, form)
            sent = await self._stage_forms.send_mail(form.get("email", "").strip(), OPERATION)
        except MatrixError as error:
            return self._page(request, target, "address", error)
        return self._page(request, target, "password", hidden=_hidden(sent))

    async def set_new_password(self, query: SignInQuery, request: Request) -> Response:
        """Set the new password, if the link in the mail was opened."""
        target = check_target(query.target)
        form = read_form(request)
        credentials = credentials_in(form)
        session = form.get(SESSION)
        try:
            self._forms.check(request, form)
            await self._change(form, credentials, session, network_of(request.address))
        except AuthenticationNeeded as needed:
            hidden = _hidden(credentials, needed.session)
            return self._page(request, target, "password", needed.failure or needed, hidden=hidden)
        except MatrixError as error:
            hidden = _hidden(credentials, session)
            return self._page(request, target, "password", error, hidden=hidden)
        return self._page(request, target, "done")

    async def _change(
        self,
        form: Mapping[str, str],
        credentials: ThreepidCredentials,
        session: str | None,
        network: str,
    ) -> None:
        password = form.get("new_password", "")
        if password != form.get("repeated_password", ""):
            raise InvalidParam("The new password and its repetition are not the same")
        auth = {
            "type": EMAIL_IDENTITY,
            "threepid_creds": {"sid": credentials.sid, "client_secret": credentials.client_secret},
            **({} if session is None else {SESSION: session}),
        }
        body = ChangePassword(
            new_password=password, logout_devices="logout_devices" in form, auth=auth
        )
        await self._reset.change(None, body, network)

    def _page(
        self,
        request: Request,
        target: str,
        step: str,
        error: MatrixError | None = None,
        *,
        hidden: Mapping[str, str] | None = None,
    ) -> Response:
        token = self._forms.token_for(request)
        return self._pages.page(
            "account/reset_password",
            status=200 if error is None else error.status,
            allowed=Allowed(form="'self'"),
            headers={**token.headers, **({} if error is None else error.headers())},
            step=step,
            form_token=token.value,
            problem="" if error is None else problem_text(error),
            hidden={} if hidden is None else hidden,
            action=self._base_path + location_of(NEW_PASSWORD, target),
            sign_in=self._base_path + sign_in_location(target),
        )


def _hidden(credentials: ThreepidCredentials, session: str | None = None) -> Mapping[str, str]:
    """What the form for the new password has of the request."""
    hidden = {"sid": credentials.sid, "client_secret": credentials.client_secret}
    return hidden if session is None else {**hidden, SESSION: session}
