"""One request of a signed-in user for a page of their account, and the making of its page."""

from typing import Any
from urllib.parse import urlencode

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import ACCOUNT, BrowserSession
from homeserver.client_api.account_pages.problems import problem_text
from homeserver.protocol.errors import MatrixError
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Response

PROFILE = "org.matrix.profile"
DEVICES_LIST = "org.matrix.devices_list"
DEVICE_VIEW = "org.matrix.device_view"
DEVICE_DELETE = "org.matrix.device_delete"
DEACTIVATE = "org.matrix.account_deactivate"
CROSS_SIGNING_RESET = "org.matrix.cross_signing_reset"
ADDRESSES = "io.homeserver.addresses"  # the specification names no action for these
SIGN_OUT_EVERYWHERE = "io.homeserver.sign_out_everywhere"
PASSWORD = "io.homeserver.password"


class Visit(msgspec.Struct, frozen=True):
    """A request of a user: for which action, and, with some, for which device."""

    session: BrowserSession
    action: str
    device_id: str
    request: Request

    @property
    def user_id(self) -> str:
        """The user."""
        return self.session.user_id

    @property
    def address(self) -> str:
        """The path and query of the page."""
        return address_of(self.action, self.device_id)


class AccountPage:
    """Makes the pages of an account. `base_path` is what a proxy has before the paths."""

    def __init__(self, pages: Pages, base_path: str) -> None:
        self._pages = pages
        self._base_path = base_path

    def page(
        self,
        visit: Visit,
        name: str,
        *,
        error: MatrixError | None = None,
        show_error: bool = True,
        **values: Any,
    ) -> Response:
        """Render the template `name` of this folder for a user.

        Its status is that of the error, which it shows unless it says so in other words.
        """
        return self._pages.page(
            f"account/{name}",
            status=200 if error is None else error.status,
            allowed=Allowed(form="'self'"),
            headers={} if error is None else error.headers(),
            problem=problem_text(error) if error is not None and show_error else "",
            user_id=visit.user_id,
            form_token=visit.session.form_token,
            account=self._base_path + ACCOUNT,
            address=self._base_path + visit.address,
            **values,
        )

    def done(self, visit: Visit, outcome: str, **headers: str) -> Response:
        """The page that says what has happened."""
        return self._pages.page(
            "account/done",
            headers=headers,
            outcome=outcome,
            user_id=visit.user_id,
            device_id=visit.device_id,
            account=self._base_path + ACCOUNT,
        )


def address_of(action: str, device_id: str = "") -> str:
    """The path and query of the page of an action."""
    query = {"action": action} if action else {}
    if device_id:
        query["device_id"] = device_id
    return f"{ACCOUNT}?{urlencode(query)}" if query else ACCOUNT
