"""The settings of the OAuth 2.0 API."""

from typing import Annotated

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
