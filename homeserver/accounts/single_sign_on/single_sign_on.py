"""Single sign-on: from the choice of a provider to the identity of a user.

Spec: https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication
"""

from collections.abc import Mapping, Sequence

import msgspec

from homeserver.accounts.single_sign_on.sign_in_attempts import (
    Purpose,
    SignInAttempt,
    SignInAttempts,
)
from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.outbound.single_sign_on.identity_provider import (
    IdentityProvider,
    SignInRefused,
    SignInRequest,
)
from homeserver.outbound.single_sign_on.providers import claim_rules
from homeserver.protocol.errors import NotFound
from homeserver.protocol.single_sign_on.claims import InvalidClaims, identify

CALLBACK_PATH = "/_matrix/sso/callback"


class SignInOption(msgspec.Struct, frozen=True):
    """A provider for users to choose."""

    id: str
    name: str


class Begun(msgspec.Struct, frozen=True):
    """A sign-in that has begun: where the browser goes, and the cookie that it stores."""

    location: str
    cookie: str


class SingleSignOn:
    """The providers, by id, and the sign-ins with them."""

    def __init__(
        self,
        settings: Sequence[IdentityProviderSettings],
        providers: Mapping[str, IdentityProvider],
        attempts: SignInAttempts,
        public_baseurl: str,
    ) -> None:
        self.settings = {each.id: each for each in settings}
        self.attempts = attempts
        self._providers = providers
        self._callback = public_baseurl.rstrip("/") + CALLBACK_PATH

    @property
    def options(self) -> list[SignInOption]:
        """The providers, in the order of the settings."""
        return [SignInOption(each.id, each.name) for each in self.settings.values()]

    def provider(self, provider_id: str) -> IdentityProviderSettings:
        """The settings of a provider. Raises `NotFound`."""
        try:
            return self.settings[provider_id]
        except KeyError:
            raise NotFound("This server has no such identity provider") from None

    async def begin(
        self, provider_id: str, purpose: Purpose, target: str, *, registers: bool = False
    ) -> Begun:
        """Begin a sign-in. Raises `NotFound`, and `ProviderFailed`."""
        self.provider(provider_id)
        attempt = self.attempts.new(provider_id, purpose, target)
        return await self.proceed(attempt, registers=registers)

    async def proceed(self, attempt: SignInAttempt, *, registers: bool = False) -> Begun:
        """Send a browser to the provider of an attempt. Raises `NotFound`, `ProviderFailed`."""
        self.provider(attempt.provider)
        request = self._request(attempt, registers=registers)
        location = await self._providers[attempt.provider].sign_in_url(request)
        return Begun(location, self.attempts.cookie(attempt))

    async def finish(
        self, parameters: Mapping[str, Sequence[str]], cookies: str | None
    ) -> SignInAttempt:
        """The attempt that a callback completes, with its identity.

        Raises `NotFound`, `SignInRefused` and `ProviderFailed`.
        """
        # A parameter that comes twice is not what a provider has sent.
        single = {name: values[0] for name, values in parameters.items() if len(values) == 1}
        attempt = self.attempts.find(single.get("state", ""), cookies)
        settings = self.provider(attempt.provider)
        if attempt.identity is not None:
            raise NotFound("This sign-in was completed before. Begin again")
        claims = await self._providers[attempt.provider].fetch_claims(
            self._request(attempt), single
        )
        try:
            identity = identify(claim_rules(settings), claims)
        except InvalidClaims as error:
            raise SignInRefused(str(error)) from None
        # They have served their purpose, and a cookie has room for little.
        return msgspec.structs.replace(attempt, nonce="", verifier="", identity=identity)

    def _request(self, attempt: SignInAttempt, *, registers: bool = False) -> SignInRequest:
        return SignInRequest(
            self._callback, attempt.state, attempt.nonce, attempt.verifier, registers
        )
