"""What all identity providers have in common: the request for a sign-in, and its failures."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from twisted.logger import Logger

from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.protocol.errors import Forbidden, RemoteServerFailed

TIMEOUT_SECONDS = 10.0  # of one request to a provider
MAX_BODY = 262_144  # bytes of its response
log = Logger()


class SignInRequest(msgspec.Struct, frozen=True):
    """A request that a browser takes to a provider.

    `callback` is the address to which the provider sends the browser back. `state` comes back with
    it, `nonce` in the ID token; `verifier` is that of PKCE. `registers`: the user wants an account.
    """

    callback: str
    state: str
    nonce: str
    verifier: str
    registers: bool = False


class SignInRefused(Forbidden):
    """The provider does not confirm that the user has signed in. The message is for the user."""


class ProviderFailed(RemoteServerFailed):
    """The provider does not respond, or what it says is not valid.

    The message is for the user, `reason` for the operator.
    """

    def __init__(self, provider: IdentityProviderSettings, reason: str) -> None:
        super().__init__(
            f"Signing in with {provider.name} does not work just now; the log of this server says"
            " why"
        )
        self.reason = reason
        log.warn("{provider}: {reason}", provider=provider.id, reason=reason)


class IdentityProvider(Protocol):
    """A service that authenticates users."""

    async def check(self) -> str:
        """What the provider is, if it has all that sign-ins need. Raises `ProviderFailed`."""

    async def sign_in_url(self, request: SignInRequest) -> str:
        """The address at the provider where the user signs in. Raises `ProviderFailed`."""

    async def fetch_claims(
        self, request: SignInRequest, parameters: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """The claims of the user who has signed in, given the parameters of the callback.

        Raises `SignInRefused` and `ProviderFailed`.
        """
