"""The query with which a client sends a browser to sign in.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3loginssoredirect
"""

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.proposals.unstable_names import UNSTABLE_SSO_ACTION
from homeserver.protocol.single_sign_on.client_urls import InvalidClientUrl, check_client_url

LOGIN = "/_matrix/client/v3/login"
REDIRECT = f"{LOGIN}/sso/redirect"
REGISTER = "register"


class RedirectQuery(msgspec.Struct):
    """Where the client wants the browser back, and what its user wants to do."""

    redirect_url: str = msgspec.field(name="redirectUrl")
    action: str | None = None
    unstable_action: str | None = msgspec.field(name=UNSTABLE_SSO_ACTION, default=None)

    @property
    def registers(self) -> bool:
        """Whether the user wants to register an account."""
        return REGISTER in (self.action, self.unstable_action)

    def check(self) -> None:
        """Raise `InvalidParam` unless users may be sent to the address of the client."""
        try:
            check_client_url(self.redirect_url)
        except InvalidClientUrl as error:
            raise InvalidParam(str(error)) from None
