"""The stages of user-interactive authentication that this server supports.

Spec: https://spec.matrix.org/v1.19/client-server-api/#authentication-types
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from homeserver.accounts.credentials.registration_tokens import RegistrationTokens
from homeserver.accounts.credentials.user_identifier import UserIdentifiers, parse_identifier
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.owner_flows import PASSWORD, SSO
from homeserver.accounts.interactive_auth.user_interactive_auth import StageFailed
from homeserver.config.sections.accounts import PolicySettings
from homeserver.protocol.errors import BadJson, CaptchaInvalid, Forbidden

DUMMY = "m.login.dummy"
RECAPTCHA = "m.login.recaptcha"
REGISTRATION_TOKEN = "m.login.registration_token"
TERMS = "m.login.terms"


class DummyStage:
    """Always succeeds."""

    type = DUMMY

    def params(self) -> None:
        return None

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        return True


class PasswordStage:
    """The user's password. Proves the user id."""

    type = PASSWORD

    def __init__(self, credentials: PasswordAndTokenVerifier, identifiers: UserIdentifiers) -> None:
        self._credentials = credentials
        self._identifiers = identifiers

    def params(self) -> None:
        return None

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        password = auth.get("password")
        if not isinstance(password, str):
            raise BadJson("auth: the password is missing")
        identifier = parse_identifier(auth.get("identifier"), auth)
        claimed = await self._identifiers.find(identifier) if identifier else user_id
        if claimed is None:
            raise BadJson("auth: the identifier is missing")
        # A thief of an access token must not confirm with an account of their own.
        if user_id is not None and claimed != user_id:
            raise Forbidden("The password is that of another user")
        try:
            await self._credentials.check_password(claimed, password)
        except Forbidden as error:
            raise StageFailed(str(error)) from None
        return claimed


class RegistrationTokenStage:
    """A token that an administrator issued. Proves the token, which is counted when it is used.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
    """

    type = REGISTRATION_TOKEN

    def __init__(self, tokens: RegistrationTokens) -> None:
        self._tokens = tokens

    def params(self) -> None:
        return None

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        token = auth.get("token")
        if not isinstance(token, str):
            raise BadJson("auth: the token is missing")
        if not await self._tokens.is_valid(token):
            raise StageFailed("The registration token is not valid")
        return token


class CaptchaNotSolved(CaptchaInvalid, StageFailed):
    """The captcha was not solved; the client may try again."""


class RecaptchaStage:
    """A captcha.

    `is_solved(response)` asks the service that made it. Proves only that it was solved.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#google-recaptcha
    """

    type = RECAPTCHA

    def __init__(self, public_key: str, is_solved: Callable[[str], Awaitable[bool]]) -> None:
        self._public_key = public_key
        self._is_solved = is_solved

    def params(self) -> Mapping[str, Any]:
        return {"public_key": self._public_key}

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        response = auth.get("response")
        if not isinstance(response, str):
            raise BadJson("auth: the response is missing")
        if not await self._is_solved(response):
            raise CaptchaNotSolved("The captcha was not solved")
        return True


class TermsStage:
    """Consent to policies. Proves the version of each one.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#terms-of-service-at-registration
    """

    type = TERMS

    def __init__(self, policies: Sequence[PolicySettings]) -> None:
        self._policies = policies

    def params(self) -> Mapping[str, Any]:
        policies: dict[str, dict[str, Any]] = {}
        for policy in self._policies:
            # One policy may be listed in several languages.
            translations = policies.setdefault(policy.id, {"version": policy.version})
            translations[policy.language] = {"name": policy.name, "url": policy.url}
        return {"policies": policies}

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        return {policy.id: policy.version for policy in self._policies}


class SsoStage:
    """Single sign-on. Proves the user id, when the user has signed in on the stage's page.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#sso-during-user-interactive-authentication
    """

    type = SSO

    def params(self) -> None:
        return None

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        raise StageFailed("Sign in on the page of this stage, in a browser")
