"""The metadata of the authorisation server, with which a client begins.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1auth_metadata
Source: https://datatracker.ietf.org/doc/html/rfc8414
"""

from typing import Any, Final

from homeserver.protocol.oauth.authorization_requests import PROMPT_CREATE, RESPONSE_MODES
from homeserver.protocol.oauth.client_metadata import CODE, GRANT_TYPES, NO_AUTHENTICATION
from homeserver.protocol.oauth.code_challenges import S256
from homeserver.protocol.oauth.scopes import API

OAUTH: Final = "/_matrix/oauth2"
AUTHORIZE: Final = f"{OAUTH}/authorize"
DEVICE: Final = f"{OAUTH}/device"
LINK: Final = f"{OAUTH}/link"
REGISTER: Final = f"{OAUTH}/register"
REVOKE: Final = f"{OAUTH}/revoke"
TOKEN: Final = f"{OAUTH}/token"
ACCOUNT: Final = "/_matrix/account"
CROSS_SIGNING_RESET: Final = "org.matrix.cross_signing_reset"
ACCOUNT_ACTIONS: Final = (
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.account_deactivate",
    CROSS_SIGNING_RESET,
)


def issuer_of(public_baseurl: str) -> str:
    """The issuer of a server: its base URL, with a slash at the end."""
    return public_baseurl.rstrip("/") + "/"


def cross_signing_reset_page(public_baseurl: str) -> str:
    """The web address at which a user permits a client to replace the cross-signing keys."""
    return f"{public_baseurl.rstrip('/')}{ACCOUNT}?action={CROSS_SIGNING_RESET}"


def server_metadata(public_baseurl: str, *, with_registration: bool) -> dict[str, Any]:
    """The document for clients; `with_registration` where users may register."""
    base = public_baseurl.rstrip("/")
    metadata: dict[str, Any] = {
        "issuer": issuer_of(public_baseurl),
        "authorization_endpoint": base + AUTHORIZE,
        "token_endpoint": base + TOKEN,
        "registration_endpoint": base + REGISTER,
        "revocation_endpoint": base + REVOKE,
        "device_authorization_endpoint": base + DEVICE,
        "response_types_supported": [CODE],
        "response_modes_supported": [*RESPONSE_MODES],
        "grant_types_supported": [*GRANT_TYPES],
        "code_challenge_methods_supported": [S256],
        "token_endpoint_auth_methods_supported": [NO_AUTHENTICATION],
        "revocation_endpoint_auth_methods_supported": [NO_AUTHENTICATION],
        "scopes_supported": [*API],
        "authorization_response_iss_parameter_supported": True,
        "account_management_uri": base + ACCOUNT,
        "account_management_actions_supported": [*ACCOUNT_ACTIONS],
    }
    if with_registration:
        metadata["prompt_values_supported"] = [PROMPT_CREATE]
    return metadata
