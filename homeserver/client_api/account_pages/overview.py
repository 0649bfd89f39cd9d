"""The overview of an account, and its profile.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

from collections.abc import Mapping
from typing import Protocol

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.user_data.profiles import (
    AVATAR_URL,
    DISPLAYNAME,
    LocalProfiles,
    Profiles,
    check_may_change,
)
from homeserver.client_api.account_pages.visits import AccountPage, Visit
from homeserver.protocol.errors import MatrixError
from homeserver.storage.accounts.third_party_ids import ThirdPartyId
from homeserver.web.routes import Response


class AddressBook(Protocol):
    """The addresses of accounts."""

    async def all_of(self, user_id: str) -> list[ThirdPartyId]:
        """The addresses of a user."""


class OverviewAction:
    """What a user can do here."""

    is_sensitive = False

    def __init__(
        self, page: AccountPage, profiles: LocalProfiles, password_change: PasswordChange
    ) -> None:
        self._page = page
        self._profiles = profiles
        self._password_change = password_change

    async def show(self, visit: Visit) -> Response:
        """The overview."""
        profile = await self._profiles.member_fields(visit.user_id)
        return self._page.page(
            visit,
            "overview",
            display_name=profile.get(DISPLAYNAME, ""),
            has_password=await self._password_change.has_password(visit.user_id),
        )

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """It has no form: show it."""
        return await self.show(visit)


class ProfileAction:
    """The name and picture of a user; their addresses are shown."""

    is_sensitive = False

    def __init__(
        self,
        page: AccountPage,
        local: LocalProfiles,
        profiles: Profiles,
        addresses: AddressBook,
        sessions: BrowserSessions,
        *,
        can_change_addresses: bool,
    ) -> None:
        self._can_change_addresses = can_change_addresses
        self._page = page
        self._local = local
        self._profiles = profiles
        self._addresses = addresses
        self._sessions = sessions

    async def show(self, visit: Visit) -> Response:
        """The form."""
        return await self._show(visit)

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Set the display name, or remove the picture."""
        try:
            await self._change(visit, form)
        except MatrixError as error:
            return await self._show(visit, error, form.get("display_name"))
        return self._page.done(visit, "profile")

    async def _change(self, visit: Visit, form: Mapping[str, str]) -> None:
        field = AVATAR_URL if "remove_picture" in form else DISPLAYNAME
        caller = await self._sessions.get_requester(visit.session)
        check_may_change(caller, visit.user_id, field)
        name = form.get("display_name", "").strip()
        if field == AVATAR_URL or not name:
            await self._profiles.remove_field(visit.user_id, field)
        else:
            await self._profiles.set_field(visit.user_id, field, name)

    async def _show(
        self, visit: Visit, error: MatrixError | None = None, name: str | None = None
    ) -> Response:
        profile = await self._local.member_fields(visit.user_id)
        return self._page.page(
            visit,
            "profile",
            error=error,
            display_name=profile.get(DISPLAYNAME, "") if name is None else name,
            has_picture=AVATAR_URL in profile,
            can_change_addresses=self._can_change_addresses,
            addresses=[each.address for each in await self._addresses.all_of(visit.user_id)],
        )
