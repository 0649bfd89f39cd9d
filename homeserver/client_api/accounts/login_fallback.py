"""The fallback page of log-in, for clients that support none of the flows.

A client opens the page in its own browser view, with an object `matrixLogin`, and gets the response
of `POST /login` by `matrixLogin.onLogin(response)`. The query parameters of the page, such as the
device id, go into the request. With single sign-on the browser comes back to the page with a login
token.

Spec: https://spec.matrix.org/v1.19/client-server-api/#login-fallback
"""

from collections.abc import Sequence
from functools import cached_property

from homeserver.web.html import Allowed, Pages
from homeserver.web.routes import Auth, Response, Route

SCRIPT = "login.js"


PATH = "/_matrix/static/client/login/"


class LoginFallbackApi:
    """`providers` are the names of identity providers, each with the address that leads there.

    The address ends in that of this page; the page adds its own query.
    """

    def __init__(
        self, pages: Pages, *, with_password: bool, providers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._pages = pages
        self._with_password = with_password
        self._providers = providers

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.show_login, Auth.NONE, page=True)]

    def show_login(self) -> Response:
        """The page."""
        return self._page

    @cached_property
    def _page(self) -> Response:
        return self._pages.page(
            "login",
            script=SCRIPT if self._with_password or self._providers else "",
            # Only this script runs: any other could steal the password.
            allowed=Allowed(connect="'self'"),
            with_password=self._with_password,
            providers=self._providers,
        )
