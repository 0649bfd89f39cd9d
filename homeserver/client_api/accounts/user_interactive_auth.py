"""Fallback pages of user-interactive authentication, for clients that do not support a stage.

The client opens the page in a browser, the user completes the stage there, and the client continues
with the session id only.

Spec: https://spec.matrix.org/v1.19/client-server-api/#fallback
"""

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    StageFailed,
    UserInteractiveAuth,
)
from homeserver.client_api.accounts.stage_forms import EMAIL_FIELD, StageForms, credentials_in
from homeserver.protocol.errors import InvalidParam, MatrixError
from homeserver.web.html import Pages
from homeserver.web.routes import Auth, Response, Route


class FallbackQuery(msgspec.Struct):
    session: str


class FallbackApi:
    def __init__(self, uia: UserInteractiveAuth, forms: StageForms, pages: Pages) -> None:
        self._uia = uia
        self._forms = forms
        self._pages = pages

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/auth/{auth_type}/fallback/web"
        return [
            Route("GET", path, self.show_fallback, auth=Auth.NONE, page=True),
            Route("POST", path, self.submit_fallback, auth=Auth.NONE, limit="login", page=True),
        ]

    async def show_fallback(self, auth_type: str, query: FallbackQuery) -> Response:
        """The form of a stage."""
        await self._uia.get_session(query.session)
        return self._forms.form(auth_type)

    async def submit_fallback(self, auth_type: str, query: FallbackQuery, body: bytes) -> Response:
        """Complete a stage with its form."""
        try:
            fields = parse_qs(body.decode(), max_num_fields=10)
        except ValueError:
            raise InvalidParam("Not a form") from None
        form = {name: values[0] for name, values in fields.items()}
        auth = self._forms.read(auth_type, form)
        if auth_type == EMAIL_IDENTITY and EMAIL_FIELD in form:
            return await self._send_mail(query.session, form[EMAIL_FIELD])
        try:
            await self._uia.complete(query.session, auth_type, auth)
        except StageFailed as failed:
            return self._form_again(auth_type, form, str(failed))
        return self._pages.page("authentication_done", script="authentication_done.js")

    async def _send_mail(self, session_id: str, email: str) -> Response:
        """Send a mail to an address; the next form says that its link was opened."""
        session = await self._uia.get_session(session_id)
        try:
            credentials = await self._forms.send_mail(email, session.operation)
        except MatrixError as error:
            return self._forms.form(EMAIL_IDENTITY, str(error))
        return self._forms.mail_sent(credentials)

    def _form_again(self, auth_type: str, form: Mapping[str, str], problem: str) -> Response:
        if auth_type == EMAIL_IDENTITY:
            return self._forms.mail_sent(credentials_in(form), problem)
        return self._forms.form(auth_type, problem)
