"""The settings of the OAuth 2.0 API."""

from typing import Annotated

import msgspec

from homeserver.config.fields import Section, doc


class OAuthSettings(Section, frozen=True, kw_only=True):
    """Log-in with a browser, by the OAuth 2.0 API."""

    enabled: Annotated[
        bool,
        doc(
            "Let users sign in to clients, and manage their accounts, on web pages of this server."
            " Needs `public_baseurl`."
        ),
    ] = False
    access_token_lifetime: Annotated[
        int,
        doc(
            "Lifetime of an access token; the client refreshes it. Keep it short.",
            unit="seconds",
            ge=10,
        ),
    ] = 300
    refresh_token_lifetime: Annotated[
        Annotated[int, msgspec.Meta(ge=60)] | None,
        doc(
            "Lifetime of an unused refresh token; the client is signed out after it.",
            unit="seconds",
            default="unlimited",
            example="7776000",
        ),
    ] = None
