"""Fallback pages of user-interactive authentication, for clients that do not support a stage.

The client opens the page in a browser, the user completes the stage there, and the client continues
with the session id only.

Spec: https://spec.matrix.org/v1.19/client-server-api/#fallback
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from homeserver.accounts.interactive_auth.authentication_stages import (
    DUMMY,
    PASSWORD,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    TERMS,
)
from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY, ThirdPartyIdStage
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    StageFailed,
    UserInteractiveAuth,
)
from homeserver.protocol.errors import InvalidParam, MatrixError, NotFound
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.web.html import Allowed, Pages
from homeserver.web.routes import Auth, Response, Route

ITSELF = Allowed(form="'self'")
# The captcha is a frame with a script, both from the service that makes it, which sets styles.
PUZZLE = Allowed(
    form="'self'",
    connect="https://www.recaptcha.net/recaptcha/",
    frame="https://www.recaptcha.net/recaptcha/",
    script="https://www.recaptcha.net/recaptcha/ https://www.gstatic.cn/recaptcha/"
    " https://www.gstatic.com/recaptcha/",
    style="'unsafe-inline'",
)
RECAPTCHA_RESPONSE = "g-recaptcha-response"  # the field that the script adds to the form


class FallbackField(msgspec.Struct, frozen=True):
    """An input of the form: `kind` is its type, `autocomplete` a hint for browsers."""

    name: str
    kind: str
    label: str
    autocomplete: str


FIELDS = {
    DUMMY: (),
    PASSWORD: (
        FallbackField("user", "text", "User name", "username"),
        FallbackField("password", "password", "Password", "current-password"),
    ),
    REGISTRATION_TOKEN: (FallbackField("token", "text", "Registration token", "off"),),
    EMAIL_IDENTITY: (FallbackField("email", "email", "E-mail address", "email"),),
}


class FallbackQuery(msgspec.Struct):
    session: str


class FallbackApi:
    def __init__(self, uia: UserInteractiveAuth, pages: Pages) -> None:
        self._uia = uia
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
        return self._form(auth_type, problem="")

    async def submit_fallback(self, auth_type: str, query: FallbackQuery, body: bytes) -> Response:
        """Complete a stage with its form."""
        if auth_type not in (DUMMY, PASSWORD, RECAPTCHA, REGISTRATION_TOKEN, TERMS, EMAIL_IDENTITY):
            raise NotFound("This stage has no page")
        try:
            form = parse_qs(body.decode(), max_num_fields=10)
        except ValueError:
            raise InvalidParam("Not a form") from None
        auth: dict[str, Any] = {name: values[0] for name, values in form.items()}
        if auth_type == EMAIL_IDENTITY:
            return await self._submit_email(query.session, auth)
        if RECAPTCHA_RESPONSE in auth:
            auth["response"] = auth[RECAPTCHA_RESPONSE]
        try:
            await self._uia.complete(query.session, auth_type, auth)
        except StageFailed as failed:
            return self._form(auth_type, problem=str(failed))
        return self._done()

    async def _submit_email(self, session_id: str, form: Mapping[str, str]) -> Response:
        """Submit the address, to which a mail is sent; then, that its link was opened."""
        session = await self._uia.get_session(session_id)
        stage = self._uia.stages.get(EMAIL_IDENTITY)
        if not isinstance(stage, ThirdPartyIdStage):
            raise NotFound("This server validates no e-mail addresses")
        if "email" in form:
            try:
                credentials = await stage.begin(form["email"], session.operation)
            except MatrixError as error:
                return self._form(EMAIL_IDENTITY, problem=str(error))
            return self._mail_page(credentials, problem="")
        credentials = ThreepidCredentials(form.get("sid", ""), form.get("client_secret", ""))
        auth = {"threepid_creds": msgspec.to_builtins(credentials)}
        try:
            await self._uia.complete(session_id, EMAIL_IDENTITY, auth)
        except StageFailed as failed:
            return self._mail_page(credentials, problem=str(failed))
        return self._done()

    def _form(self, auth_type: str, problem: str) -> Response:
        if auth_type == EMAIL_IDENTITY and EMAIL_IDENTITY not in self._uia.stages:
            raise NotFound("This server validates no e-mail addresses")
        if auth_type == TERMS:
            return self._page("terms", problem, documents=self._policies())
        if auth_type == RECAPTCHA:
            return self._page(RECAPTCHA, problem, PUZZLE, public_key=self._public_key())
        if auth_type in FIELDS:
            return self._page(auth_type, problem, fields=FIELDS[auth_type])
        raise NotFound("This stage has no page")

    def _mail_page(self, credentials: ThreepidCredentials, problem: str) -> Response:
        """The page that asks the user to open the mail. Its form has the session."""
        return self._page("mail_sent", problem, hidden=msgspec.structs.asdict(credentials))

    def _done(self) -> Response:
        return self._pages.page("authentication_done", script="authentication_done.js")

    def _page(self, stage: str, problem: str, allowed: Allowed = ITSELF, **values: Any) -> Response:
        unused = {"documents": (), "hidden": {}, "fields": (), "public_key": ""}
        return self._pages.page(
            "authentication",
            allowed=allowed,
            stage=stage,
            problem=problem,
            **(unused | values),
        )

    def _public_key(self) -> str:
        stage = self._uia.stages.get(RECAPTCHA)
        params = stage.params() if stage is not None else None
        if params is None:
            raise NotFound("This server has no captchas")
        return str(params["public_key"])

    def _policies(self) -> list[Any]:
        """The documents to accept: `name` and `url` of each."""
        stage = self._uia.stages.get(TERMS)
        params: Any = stage.params() if stage is not None else None
        return [
            document
            for policy in (params or {"policies": {}})["policies"].values()
            for document in policy.values()
            if isinstance(document, dict)
        ]
