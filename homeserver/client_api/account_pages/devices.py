"""The devices of a user: the list, one of them, and signing one or all of them out.

Device ids are known to other users, who can make links to these pages. So a link only shows what
would happen; the user does it with the form of the page.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.client_api.account_pages.visits import AccountPage, Visit
from homeserver.protocol.errors import MatrixError, NotFound
from homeserver.storage.accounts.devices import Device
from homeserver.web.routes import Response

MAX_SHOWN = 200  # devices of a list: programs that log in at each start have many


class ShownDevice(msgspec.Struct, frozen=True):
    """A device as its user reads of it.

    Without a `display_name` its id is its `name`. `seen` is a time in UTC, or "" for never.
    """

    device_id: str
    name: str
    display_name: str
    seen: str
    address: str
    agent: str


class DevicesListAction:
    """All devices of a user, the one that was used last first."""

    is_sensitive = False

    def __init__(self, page: AccountPage, devices: Devices) -> None:
        self._page = page
        self._devices = devices

    async def show(self, visit: Visit) -> Response:
        """The list."""
        devices = await self._devices.all_of(visit.user_id)
        devices.sort(key=lambda device: device.last_seen_ms or 0, reverse=True)
        shown = [_shown(each) for each in devices[:MAX_SHOWN]]
        return self._page.page(visit, "devices", devices=shown, others=len(devices) - len(shown))

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """It has no form: show it."""
        return await self.show(visit)


class DeviceViewAction:
    """One device, and its name, which the user may change."""

    is_sensitive = False

    def __init__(self, page: AccountPage, devices: Devices) -> None:
        self._page = page
        self._devices = devices

    async def show(self, visit: Visit) -> Response:
        """What is known of the device."""
        return await self._show(visit)

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Rename the device."""
        name = form.get("display_name", "").strip()
        try:
            await self._devices.rename(visit.user_id, visit.device_id, name)
        except NotFound as error:
            return _unknown(self._page, visit, error)
        except MatrixError as error:
            return await self._show(visit, error)
        return self._page.done(visit, "device_renamed")

    async def _show(self, visit: Visit, error: MatrixError | None = None) -> Response:
        try:
            device = await self._devices.get(visit.user_id, visit.device_id)
        except NotFound as unknown:
            return _unknown(self._page, visit, unknown)
        return self._page.page(visit, "device", error=error, device=_shown(device))


class DeviceDeleteAction:
    """Signing a device out, after a question."""

    is_sensitive = True

    def __init__(self, page: AccountPage, devices: Devices) -> None:
        self._page = page
        self._devices = devices

    async def show(self, visit: Visit) -> Response:
        """The question."""
        try:
            device = await self._devices.get(visit.user_id, visit.device_id)
        except NotFound as error:
            return _unknown(self._page, visit, error)
        return self._page.page(visit, "device_delete", device=_shown(device))

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Sign the device out."""
        try:
            await self._devices.get(visit.user_id, visit.device_id)
        except NotFound as error:
            return _unknown(self._page, visit, error)
        await self._devices.remove(visit.user_id, [visit.device_id])
        return self._page.done(visit, "device_deleted")


class SignOutEverywhereAction:
    """Signing out of all devices and all browsers, after a question."""

    is_sensitive = True

    def __init__(
        self, page: AccountPage, log_in_sessions: LoginSessions, sessions: BrowserSessions
    ) -> None:
        self._page = page
        self._log_in_sessions = log_in_sessions
        self._sessions = sessions

    async def show(self, visit: Visit) -> Response:
        """The question."""
        return self._page.page(visit, "sign_out_everywhere")

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Sign out, in this browser, too."""
        await self._log_in_sessions.close_all(visit.user_id)
        cookie = await self._sessions.end(visit.request)
        return self._page.done(visit, "signed_out_everywhere", **{"Set-Cookie": cookie})


def _unknown(page: AccountPage, visit: Visit, error: NotFound) -> Response:
    """The page for a device that the user does not have: signed out already, or another user's."""
    return page.page(
        visit, "device_unknown", error=error, show_error=False, device_id=visit.device_id
    )


def _shown(device: Device) -> ShownDevice:
    seen = ""
    if device.last_seen_ms is not None:
        seen = f"{datetime.fromtimestamp(device.last_seen_ms / 1000, UTC):%-d %B %Y, %H:%M} UTC"
    return ShownDevice(
        device.device_id,
        device.display_name or device.device_id,
        device.display_name or "",
        seen,
        device.last_seen_ip or "",
        device.last_seen_agent or "",
    )
