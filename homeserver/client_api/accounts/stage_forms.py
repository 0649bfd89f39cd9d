"""The forms with which users complete stages of user-interactive authentication in a browser.

Spec: https://spec.matrix.org/v1.19/client-server-api/#fallback
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.accounts.interactive_auth.authentication_stages import (
    DUMMY,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    TERMS,
)
from homeserver.accounts.interactive_auth.owner_flows import PASSWORD
from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY, ThirdPartyIdStage
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.protocol.errors import NotFound
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.web.html import Allowed, Pages
from homeserver.web.routes import Response

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
EMAIL_FIELD = "email"
NOTHING: Mapping[str, str] = {}


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
    EMAIL_IDENTITY: (FallbackField(EMAIL_FIELD, "email", "E-mail address", "email"),),
}
WITH_FORM = (*FIELDS, RECAPTCHA, TERMS)


class StageForms:
    """Shows the forms, and reads what users fill in.

    `hidden` are further fields of a form, and `headers` those of its page.
    """

    def __init__(self, uia: UserInteractiveAuth, pages: Pages) -> None:
        self._uia = uia
        self._pages = pages

    def form(
        self,
        auth_type: str,
        problem: str = "",
        hidden: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
    ) -> Response:
        """The form of a stage. Raises `NotFound` for a stage that has none on this server."""
        if auth_type == EMAIL_IDENTITY:
            self._email_stage()
        values: dict[str, Any] = {"problem": problem, "hidden": hidden, "headers": headers}
        if auth_type == TERMS:
            return self._page("terms", **values, documents=self._policies())
        if auth_type == RECAPTCHA:
            return self._page(RECAPTCHA, PUZZLE, **values, public_key=self._public_key())
        if auth_type in FIELDS:
            return self._page(auth_type, **values, fields=FIELDS[auth_type])
        raise NotFound("This stage has no page")

    async def send_mail(self, email: str, operation: str) -> ThreepidCredentials:
        """Send a mail to the address that a user has given for an operation.

        Raises what `ThirdPartyIdStage.begin` raises.
        """
        return await self._email_stage().begin(email, operation)

    def mail_sent(
        self,
        credentials: ThreepidCredentials,
        problem: str = "",
        hidden: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
    ) -> Response:
        """The page that asks the user to open the mail. Its form has the session."""
        hidden = {**hidden, **msgspec.structs.asdict(credentials)}
        return self._page("mail_sent", problem=problem, hidden=hidden, headers=headers)

    def read(self, auth_type: str, form: Mapping[str, str]) -> dict[str, Any]:
        """What a client would send for a stage. Raises `NotFound` for a stage without a form."""
        if auth_type not in WITH_FORM:
            raise NotFound("This stage has no page")
        if auth_type == EMAIL_IDENTITY:
            return {"threepid_creds": msgspec.to_builtins(credentials_in(form))}
        auth: dict[str, Any] = dict(form)
        if RECAPTCHA_RESPONSE in form:
            auth["response"] = form[RECAPTCHA_RESPONSE]
        return auth

    def _email_stage(self) -> ThirdPartyIdStage:
        stage = self._uia.stages.get(EMAIL_IDENTITY)
        if not isinstance(stage, ThirdPartyIdStage):
            raise NotFound("This server validates no e-mail addresses")
        return stage

    def _page(self, stage: str, allowed: Allowed = ITSELF, **values: Any) -> Response:
        unused = {"documents": (), "fields": (), "public_key": ""}
        return self._pages.page("authentication", allowed=allowed, stage=stage, **(unused | values))

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


def credentials_in(form: Mapping[str, str]) -> ThreepidCredentials:
    """The session of a mail, from the form of `mail_sent`."""
    return ThreepidCredentials(form.get("sid", ""), form.get("client_secret", ""))
