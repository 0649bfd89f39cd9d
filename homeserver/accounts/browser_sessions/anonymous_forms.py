"""Tokens for the forms of browsers that have no session yet: those for signing in and up.

Without them another site could sign a browser in to an account of its own, and the user would write
there (log-in CSRF). The token is derived from a secret in a cookie, which only pages of this server
set and other sites can neither read nor send. Another host of the same domain can set a cookie for
it; browsers say in `Sec-Fetch-Site` that its forms are of another place, and they are refused
(`web/browser/forms.py`).

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

from collections.abc import Mapping

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import (
    BrowserRequest,
    Cookies,
    check_form_token,
    form_token_of,
)
from homeserver.accounts.sessions.secret_tokens import new_token
from homeserver.protocol.errors import Forbidden

FORM_COOKIE = "homeserver_form"


class FormToken(msgspec.Struct, frozen=True):
    """The token of a form, and the headers of the page that has the form."""

    value: str
    headers: Mapping[str, str]


class AnonymousForms:
    """Issues and checks the tokens."""

    def __init__(self, cookies: Cookies) -> None:
        self._cookies = cookies

    def token_for(self, request: BrowserRequest) -> FormToken:
        """A token for the browser, with its present secret if it has one: other tabs may use it."""
        secret = self._cookies.value(FORM_COOKIE, request)
        if secret is not None:
            return FormToken(form_token_of(secret), {})
        secret = new_token()
        return FormToken(
            form_token_of(secret), {"Set-Cookie": self._cookies.set(FORM_COOKIE, secret)}
        )

    def check(self, request: BrowserRequest, form: Mapping[str, str]) -> None:
        """Raise `Forbidden` unless the form is of a page that this browser got."""
        secret = self._cookies.value(FORM_COOKIE, request)
        if secret is None:
            raise Forbidden("Your browser must accept cookies from this server. Try again")
        check_form_token(form_token_of(secret), form)
