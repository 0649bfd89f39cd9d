"""Fallback pages of user-interactive authentication, for clients that do not know a stage.

The client opens the page in a browser, the user completes the stage there, and the client goes on
with the session alone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#fallback
"""

from collections.abc import Mapping
from html import escape
from string import Template
from typing import Any
from urllib.parse import parse_qs

import msgspec

from homeserver.accounts.address_validation import Credentials
from homeserver.accounts.authentication_stages import (
    DUMMY,
    PASSWORD,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    TERMS,
)
from homeserver.accounts.third_party_stage import EMAIL_IDENTITY, ThirdPartyIdStage
from homeserver.accounts.user_interactive_auth import StageFailed, UserInteractiveAuth
from homeserver.protocol.errors import InvalidParam, MatrixError, NotFound
from homeserver.web.routes import Answer, Auth, Route

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Authentication</title>
<style>body { font: 1rem/1.5 sans-serif; max-width: 30rem; margin: 2rem auto; padding: 0 1rem }
input, button { font: inherit; margin: .5rem 0 }</style></head>
<body>$content</body></html>
""")
# The puzzle is a frame with a script, both from the service that makes it.
RECAPTCHA_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace(
        "script-src",
        "frame-src https://www.recaptcha.net/recaptcha/;"
        " script-src https://www.recaptcha.net/recaptcha/ https://www.gstatic.cn/recaptcha/"
        " https://www.gstatic.com/recaptcha/",
    ),
}
RECAPTCHA_FIELDS = Template("""
<script src="https://www.recaptcha.net/recaptcha/api.js" async defer></script>
<div class="g-recaptcha" data-sitekey="$public_key"></div>""")
RECAPTCHA_RESPONSE = "g-recaptcha-response"  # the field that the script adds to the form
FORM = Template("""<h1>Authentication</h1>$problem
<form method="post">$fields<p><button>$button</button></p></form>""")
DONE = """<h1>Done</h1><p>You can close this window and return to your client.</p>
<script>
if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}
</script>"""
# What the user fills in: name of the field, type of the input, label.
FIELDS = {
    PASSWORD: (("user", "text", "User name"), ("password", "password", "Password")),
    REGISTRATION_TOKEN: (("token", "text", "Registration token"),),
    EMAIL_IDENTITY: (("email", "email", "E-mail address"),),
}
MAIL_SENT = "<p>A mail was sent to you. Follow the link in it, then come back here.</p>"


class FallbackQuery(msgspec.Struct):
    session: str


class FallbackApi:
    def __init__(self, uia: UserInteractiveAuth) -> None:
        self._uia = uia

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/auth/{auth_type}/fallback/web"
        return [
            Route("GET", path, self.show_fallback, auth=Auth.NONE),
            Route("POST", path, self.submit_fallback, auth=Auth.NONE, limit="login"),
        ]

    async def show_fallback(self, auth_type: str, query: FallbackQuery) -> Answer:
        """The form of a stage."""
        await self._uia.get_session(query.session)
        return self._form(auth_type, problem="")

    async def submit_fallback(self, auth_type: str, query: FallbackQuery, body: bytes) -> Answer:
        """Complete a stage by its form."""
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
        return _page(DONE)

    async def _submit_email(self, session_id: str, form: Mapping[str, str]) -> Answer:
        """First the address, to which a mail is sent; then that the link in it was followed."""
        session = await self._uia.get_session(session_id)
        stage = self._uia.stages.get(EMAIL_IDENTITY)
        if not isinstance(stage, ThirdPartyIdStage):
            raise NotFound("This server validates no e-mail addresses")
        if "email" in form:
            try:
                named = await stage.begin(form["email"], session.operation)
            except MatrixError as error:
                return self._form(EMAIL_IDENTITY, problem=str(error))
            return _mail_page(named, problem="")
        named = Credentials(form.get("sid", ""), form.get("client_secret", ""))
        auth = {"threepid_creds": msgspec.to_builtins(named)}
        try:
            await self._uia.complete(session_id, EMAIL_IDENTITY, auth)
        except StageFailed as failed:
            return _mail_page(named, problem=str(failed))
        return _page(DONE)

    def _form(self, auth_type: str, problem: str) -> Answer:
        headers = HEADERS
        if auth_type == EMAIL_IDENTITY and EMAIL_IDENTITY not in self._uia.stages:
            raise NotFound("This server validates no e-mail addresses")
        if auth_type == TERMS:
            fields, button = self._policies(), "I agree"
        elif auth_type == RECAPTCHA:
            fields, button, headers = self._puzzle(), "Continue", RECAPTCHA_HEADERS
        elif auth_type in FIELDS or auth_type == DUMMY:
            fields = "".join(
                f'<p><label>{label}<br><input name="{name}" type="{kind}" required></label></p>'
                for name, kind, label in FIELDS.get(auth_type, ())
            )
            button = "Continue"
        else:
            raise NotFound("This stage has no page")
        return _form_page(problem, fields, button, headers)

    def _puzzle(self) -> str:
        stage = self._uia.stages.get(RECAPTCHA)
        params = stage.params() if stage is not None else None
        if params is None:
            raise NotFound("This server has no captchas")
        return RECAPTCHA_FIELDS.substitute(public_key=escape(params["public_key"]))

    def _policies(self) -> str:
        stage = self._uia.stages.get(TERMS)
        params: Any = stage.params() if stage is not None else None
        links = [
            f'<li><a href="{escape(document["url"])}">{escape(document["name"])}</a>'
            for policy in (params or {"policies": {}})["policies"].values()
            for document in policy.values()
            if isinstance(document, dict)
        ]
        return f"<p>To go on, please read and accept:</p><ul>{''.join(links)}</ul>"


def _mail_page(named: Credentials, problem: str) -> Answer:
    """What to do until the mail arrives. The form carries the session on."""
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in msgspec.structs.asdict(named).items()
    )
    return _form_page(problem, MAIL_SENT + hidden, "Continue")


def _form_page(
    problem: str, fields: str, button: str, headers: Mapping[str, str] = HEADERS
) -> Answer:
    told = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return _page(FORM.substitute(problem=told, fields=fields, button=button), headers)


def _page(content: str, headers: Mapping[str, str] = HEADERS) -> Answer:
    return Answer(200, PAGE.substitute(content=content).encode(), headers)
