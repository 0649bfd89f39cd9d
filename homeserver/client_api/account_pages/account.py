"""The pages of an account: who may see them, and which of them an action leads to.

A page that shows the account needs a session. One that does harm in the wrong hands needs a user
who has signed in within the last ten minutes, so that a stranger at an open computer cannot use it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import (
    ACCOUNT,
    BrowserSessions,
    sign_in_location,
)
from homeserver.client_api.account_pages.visits import (
    DEVICE_DELETE,
    DEVICE_VIEW,
    DEVICES_LIST,
    PROFILE,
    Visit,
    address_of,
)
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.web.browser.forms import read_form
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

RECENT_MS = 10 * 60 * 1000
OVERVIEW = ""
# Names of before MSC4191 was accepted, which deployed clients use.
FORMER_NAMES = {
    "profile": PROFILE,
    "sessions_list": DEVICES_LIST,
    "org.matrix.sessions_list": DEVICES_LIST,
    "session_view": DEVICE_VIEW,
    "org.matrix.session_view": DEVICE_VIEW,
    "session_end": DEVICE_DELETE,
    "org.matrix.session_end": DEVICE_DELETE,
}


class AccountAction(Protocol):
    """One page of an account. `is_sensitive`: it needs a user who has just signed in."""

    is_sensitive: bool

    async def show(self, visit: Visit) -> Response:
        """The page."""

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Do what the form of the page says."""


class AccountQuery(msgspec.Struct):
    action: str = OVERVIEW
    device_id: str = ""


class AccountPagesApi:
    """`actions` are the pages by the name of their action; `OVERVIEW` is that of all others."""

    def __init__(
        self, sessions: BrowserSessions, clock: Clock, actions: Mapping[str, AccountAction]
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self._actions = actions

    def routes(self) -> list[Route]:
        return [
            Route("GET", ACCOUNT, self.show_account, Auth.NONE, limit="lookup", page=True),
            Route("POST", ACCOUNT, self.change_account, Auth.NONE, limit="login", page=True),
        ]

    async def show_account(self, query: AccountQuery, request: Request) -> Response:
        """The page of an action."""
        visit = await self._visit(query, request)
        if isinstance(visit, Response):
            return visit
        return await self._actions[visit.action].show(visit)

    async def change_account(self, query: AccountQuery, request: Request) -> Response:
        """Do what a form of such a page says."""
        form = read_form(request)
        visit = await self._visit(query, request)
        if isinstance(visit, Response):
            return visit
        self._sessions.check_form(visit.session, form)
        return await self._actions[visit.action].submit(visit, form)

    async def _visit(self, query: AccountQuery, request: Request) -> Visit | Response:
        """The visit of a user, or a redirect to the page for signing in."""
        name = FORMER_NAMES.get(query.action, query.action)
        action = name if name in self._actions else OVERVIEW
        session = await self._sessions.find(request)
        if session is not None:
            visit = Visit(session, action, query.device_id, request)
            age = now_ms(self._clock) - session.authenticated_ms
            if not self._actions[action].is_sensitive or age < RECENT_MS:
                return visit
        location = sign_in_location(address_of(action, query.device_id))
        return Response(303, b"", {"Location": self._sessions.cookies.base_path + location})
