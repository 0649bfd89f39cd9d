"""Signing out of the pages of this server.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

from homeserver.accounts.browser_sessions.browser_sessions import (
    ACCOUNT,
    BrowserSessions,
    sign_in_location,
)
from homeserver.web.browser.forms import read_form
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route


class SignOutApi:
    def __init__(self, sessions: BrowserSessions) -> None:
        self._sessions = sessions

    def routes(self) -> list[Route]:
        return [Route("POST", f"{ACCOUNT}/sign_out", self.sign_out, Auth.NONE, page=True)]

    async def sign_out(self, request: Request) -> Response:
        """End the session of the browser, and show the page for signing in."""
        form = read_form(request)
        session = await self._sessions.find(request)
        if session is not None:
            self._sessions.check_form(session, form)
        cookie = await self._sessions.end(request)
        location = self._sessions.cookies.base_path + sign_in_location(ACCOUNT)
        return Response(303, b"", {"Location": location, "Set-Cookie": cookie})
