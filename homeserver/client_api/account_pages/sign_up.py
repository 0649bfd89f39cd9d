"""The pages for signing up: a name and a password, and then what this server requires.

The stages are those of user-interactive authentication. Its session keeps the name and the password
meanwhile, encrypted with its own id, which only the form has.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

from collections.abc import Mapping

from homeserver.accounts.browser_sessions.anonymous_forms import AnonymousForms, FormToken
from homeserver.accounts.browser_sessions.browser_sessions import (
    FORM_TOKEN,
    SIGN_UP,
    BrowserSessions,
    check_target,
    sign_in_location,
)
from homeserver.accounts.interactive_auth.authentication_stages import DUMMY
from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    AuthenticationNeeded,
    UserInteractiveAuth,
)
from homeserver.accounts.registration.registration_flow import (
    RegistrationFlow,
    RegistrationRequest,
)
from homeserver.client_api.account_pages.problems import problem_text
from homeserver.client_api.account_pages.sign_in import SignInQuery
from homeserver.client_api.accounts.stage_forms import EMAIL_FIELD, StageForms, credentials_in
from homeserver.protocol.errors import (
    Exclusive,
    Forbidden,
    InvalidParam,
    InvalidUsername,
    MatrixError,
    NotFound,
    UserInUse,
)
from homeserver.web.addresses import network_of
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

STAGE = "stage"
SESSION = "session"
# The user has to begin again: another name is needed, or the session has expired.
START_AGAIN = (Exclusive, InvalidUsername, NotFound, UserInUse)


class SignUpApi:
    """Without `with_password` nobody can sign up here, since nobody could sign in again."""

    def __init__(
        self,
        flow: RegistrationFlow,
        uia: UserInteractiveAuth,
        stage_forms: StageForms,
        sessions: BrowserSessions,
        forms: AnonymousForms,
        pages: Pages,
        *,
        with_password: bool,
    ) -> None:
        self._flow = flow
        self._uia = uia
        self._stage_forms = stage_forms
        self._sessions = sessions
        self._forms = forms
        self._pages = pages
        self._with_password = with_password

    def routes(self) -> list[Route]:
        return [
            Route("GET", SIGN_UP, self.show_sign_up, Auth.NONE, limit="lookup", page=True),
            Route("POST", SIGN_UP, self.submit_sign_up, Auth.NONE, limit="availability", page=True),
        ]

    async def show_sign_up(self, query: SignInQuery, request: Request) -> Response:
        """The form for a name and a password."""
        self._check_open()
        return self._page(request, check_target(query.target))

    async def submit_sign_up(self, query: SignInQuery, request: Request) -> Response:
        """Complete one step; the last one signs the user in and returns to the target."""
        self._check_open()
        target = check_target(query.target)
        form = read_form(request)
        try:
            self._forms.check(request, form)
            if SESSION in form:
                return await self._continue(request, target, form)
            return await self._begin(request, target, form)
        except MatrixError as error:
            return self._page(request, target, form.get("user", ""), error)

    def _check_open(self) -> None:
        self._flow.check_open()
        if not self._with_password:
            raise Forbidden("Registration is disabled on this server")

    async def _begin(self, request: Request, target: str, form: Mapping[str, str]) -> Response:
        password = form.get("password", "")
        body = RegistrationRequest(
            username=form.get("user", "").strip(),
            password=password,
            inhibit_login=True,
            auth={"type": DUMMY},
        )
        if password != form.get("repeated_password", ""):
            raise InvalidParam("The password and its repetition are not the same")
        return await self._register(request, target, body)

    async def _continue(self, request: Request, target: str, form: Mapping[str, str]) -> Response:
        """Complete a stage of a session."""
        session, stage = form[SESSION], form.get(STAGE, "")
        # Without a name and a password there must be no account.
        content = await self._uia.get_session(session)
        token = self._forms.token_for(request)
        try:
            if stage == EMAIL_IDENTITY and EMAIL_FIELD in form:
                sent = await self._stage_forms.send_mail(form[EMAIL_FIELD], content.operation)
                hidden = _hidden(token, session, stage)
                return self._stage_forms.mail_sent(sent, "", hidden, token.headers)
            auth = {**self._stage_forms.read(stage, form), "type": stage, SESSION: session}
            return await self._register(request, target, RegistrationRequest(auth=auth), form)
        except START_AGAIN:
            raise
        except MatrixError as error:
            return self._stage_page(token, session, stage, problem_text(error), form)

    async def _register(
        self,
        request: Request,
        target: str,
        body: RegistrationRequest,
        form: Mapping[str, str] | None = None,
    ) -> Response:
        try:
            user_id, _ = await self._flow.register(body, network_of(request.address))
        except AuthenticationNeeded as needed:
            problem = "" if needed.failure is None else problem_text(needed.failure)
            token = self._forms.token_for(request)
            same = form if needed.failure is not None else None
            return self._stage_page(token, needed.session, needed.next_stage, problem, same)
        cookie = await self._sessions.open(user_id, request)
        if body.auth is not None and SESSION in body.auth:
            # It would sign in anybody who goes back to this form in the history of the browser.
            await self._uia.sessions.end(body.auth[SESSION])
        location = self._sessions.cookies.base_path + target
        return Response(303, b"", {"Location": location, "Set-Cookie": cookie})

    def _stage_page(
        self,
        token: FormToken,
        session: str,
        stage: str,
        problem: str,
        form: Mapping[str, str] | None,
    ) -> Response:
        hidden = _hidden(token, session, stage)
        if stage == EMAIL_IDENTITY and form is not None and "sid" in form:
            sent = credentials_in(form)
            return self._stage_forms.mail_sent(sent, problem, hidden, token.headers)
        return self._stage_forms.form(stage, problem, hidden, token.headers)

    def _page(
        self, request: Request, target: str, name: str = "", error: MatrixError | None = None
    ) -> Response:
        token = self._forms.token_for(request)
        return self._pages.page(
            "account/sign_up",
            status=200 if error is None else error.status,
            allowed=Allowed(form="'self'"),
            headers={**token.headers, **({} if error is None else error.headers())},
            form_token=token.value,
            problem="" if error is None else problem_text(error),
            user_name=name,
            sign_in=self._sessions.cookies.base_path + sign_in_location(target),
        )


def _hidden(token: FormToken, session: str, stage: str) -> Mapping[str, str]:
    return {FORM_TOKEN: token.value, SESSION: session, STAGE: stage}
