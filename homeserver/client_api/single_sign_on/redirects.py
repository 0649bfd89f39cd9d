"""The beginning of single sign-on: from a client, or from a page of this server, to a provider.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3loginssoredirect
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import check_target
from homeserver.accounts.single_sign_on.sign_in_attempts import Purpose
from homeserver.accounts.single_sign_on.single_sign_on import Begun, SingleSignOn
from homeserver.client_api.single_sign_on.redirect_query import (
    LOGIN,
    REDIRECT,
    REGISTER,
    RedirectQuery,
)
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.single_sign_on.client_urls import MAX_LENGTH
from homeserver.web.html import Pages
from homeserver.web.routes import Auth, Response, Route


class BrowserQuery(msgspec.Struct):
    return_to: str


def redirect(begun: Begun) -> Response:
    """The response that sends a browser to a provider."""
    return Response(
        302,
        b"",
        {
            "Location": begun.location,
            "Set-Cookie": begun.cookie,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        },
    )


class SsoRedirectApi:
    """`with_browser_sessions`: pages of this server send browsers to providers, too.

    Then clients that name no provider send browsers to these pages.
    """

    def __init__(
        self,
        single_sign_on: SingleSignOn,
        pages: Pages,
        *,
        with_browser_sessions: bool,
    ) -> None:
        self._sso = single_sign_on
        self._pages = pages
        self._with_browser_sessions = with_browser_sessions

    def routes(self) -> list[Route]:
        handlers: dict[str, Callable[..., Any]] = {
            f"{REDIRECT}/{{idp_id}}": self.redirect_to_idp,
            "/_matrix/sso/redirect/{idp_id}": self.redirect_browser,
        }
        if not self._with_browser_sessions:
            handlers[REDIRECT] = self.redirect_to_sso
        if self._cas_provider is not None:
            handlers[f"{LOGIN}/cas/redirect"] = self.redirect_to_cas
        return [
            Route("GET", path, handler, Auth.NONE, limit="lookup", page=True)
            for path, handler in handlers.items()
        ]

    @property
    def _cas_provider(self) -> str | None:
        ids = (each.id for each in self._sso.settings.values() if each.kind == "cas")
        return next(ids, None)

    async def redirect_to_sso(self, query: RedirectQuery) -> Response:
        """Send the browser to the provider, or to the choice of one if there are several."""
        query.check()
        options = self._sso.options
        if len(options) == 1:
            return await self._begin(options[0].id, query)
        parameters = {"redirectUrl": query.redirect_url}
        if query.registers:
            parameters["action"] = REGISTER
        path = f"{self._sso.attempts.base_path}{REDIRECT}"
        choices = [
            (each.name, f"{path}/{quote(each.id)}?{urlencode(parameters)}") for each in options
        ]
        return self._pages.page("sso/choose_provider", choices=choices)

    async def redirect_to_idp(self, idp_id: str, query: RedirectQuery) -> Response:
        """Send the browser to a provider."""
        query.check()
        return await self._begin(idp_id, query)

    async def redirect_to_cas(self, query: RedirectQuery) -> Response:
        """Send the browser to the CAS server: the old name of `redirect_to_sso`."""
        query.check()
        if self._cas_provider is None:
            raise NotFound("This server has no CAS server")
        return await self._begin(self._cas_provider, query)

    async def redirect_browser(self, idp_id: str, query: BrowserQuery) -> Response:
        """Send the browser to a provider, to come back to a page of this server with a session."""
        if not self._with_browser_sessions:
            raise NotFound("This server has no pages that need this")
        target = check_target(query.return_to)
        if len(target) > MAX_LENGTH:
            raise InvalidParam("return_to is too long for a cookie")
        return redirect(await self._sso.begin(idp_id, Purpose.BROWSER, target))

    async def _begin(self, provider: str, query: RedirectQuery) -> Response:
        return redirect(
            await self._sso.begin(
                provider, Purpose.LOGIN, query.redirect_url, registers=query.registers
            )
        )
