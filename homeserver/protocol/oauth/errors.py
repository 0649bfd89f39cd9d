"""Errors of the OAuth 2.0 endpoints, which have the form of RFC 6749, not that of Matrix.

Source: https://datatracker.ietf.org/doc/html/rfc6749#section-5.2
"""

from typing import Any, Final

from homeserver.protocol.errors import MatrixError

ACCESS_DENIED: Final = "access_denied"
AUTHORIZATION_PENDING: Final = "authorization_pending"
CONSENT_REQUIRED: Final = "consent_required"
EXPIRED_TOKEN: Final = "expired_token"
INVALID_CLIENT: Final = "invalid_client"
INVALID_CLIENT_METADATA: Final = "invalid_client_metadata"
INVALID_GRANT: Final = "invalid_grant"
INVALID_REDIRECT_URI: Final = "invalid_redirect_uri"
INVALID_REQUEST: Final = "invalid_request"
INVALID_SCOPE: Final = "invalid_scope"
LOGIN_REQUIRED: Final = "login_required"
SLOW_DOWN: Final = "slow_down"
TEMPORARILY_UNAVAILABLE: Final = "temporarily_unavailable"
UNAUTHORIZED_CLIENT: Final = "unauthorized_client"
UNSUPPORTED_GRANT_TYPE: Final = "unsupported_grant_type"
UNSUPPORTED_RESPONSE_TYPE: Final = "unsupported_response_type"

_STATUS = {INVALID_CLIENT: 401, TEMPORARILY_UNAVAILABLE: 503}


class OAuthError(MatrixError):
    """The response is `{"error": …, "error_description": …}`.

    The description is printable ASCII without quotation marks and backslashes.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.errcode = error
        self.status = _STATUS.get(error, 400)

    def body(self) -> dict[str, Any]:
        return {"error": self.errcode, "error_description": str(self)}
