"""The e-mail addresses and phone numbers of a user, by which a password can be reset.

Clients that got their tokens by the OAuth 2.0 API cannot add addresses, so users do it here.

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from collections.abc import Mapping

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.third_party_ids.identity_bindings import IdentityBindings
from homeserver.accounts.third_party_ids.third_party_ids import ThirdPartyIds
from homeserver.client_api.account_pages.visits import AccountPage, Visit
from homeserver.client_api.accounts.stage_forms import EMAIL_FIELD, credentials_in
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.protocol.third_party_ids.addresses import EMAIL
from homeserver.web.routes import Response


class AddressesAction:
    """The list, with forms for adding an address by a mail to it, and for removing one."""

    is_sensitive = True

    def __init__(
        self,
        page: AccountPage,
        ids: ThirdPartyIds,
        bindings: IdentityBindings,
        sessions: BrowserSessions,
        *,
        can_add: bool,
    ) -> None:
        self._page = page
        self._ids = ids
        self._bindings = bindings
        self._sessions = sessions
        self._can_add = can_add

    async def show(self, visit: Visit) -> Response:
        """The list."""
        return await self._show(visit)

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Send a mail, add an address whose link was opened, or remove one."""
        credentials = None
        try:
            if EMAIL_FIELD in form:
                sent = await self._ids.request_token(EMAIL, form[EMAIL_FIELD].strip())
                return self._mail_sent(visit, sent)
            if "sid" in form:
                credentials = credentials_in(form)
                caller = await self._sessions.get_requester(visit.session)
                await self._ids.add(caller, credentials)
                return self._page.done(visit, "address_added")
            await self._remove(visit, form.get("medium", ""), form.get("address", ""))
        except MatrixError as error:
            if credentials is not None:
                return self._mail_sent(visit, credentials, error)
            return await self._show(visit, error)
        return self._page.done(visit, "address_removed")

    async def _remove(self, visit: Visit, medium: str, address: str) -> None:
        caller = await self._sessions.get_requester(visit.session)
        removed = await self._ids.remove(caller, medium, address)
        await self._bindings.unbind_quietly(visit.user_id, medium, removed, None)

    def _mail_sent(
        self, visit: Visit, credentials: ThreepidCredentials, error: MatrixError | None = None
    ) -> Response:
        hidden = msgspec.structs.asdict(credentials)
        return self._page.page(visit, "address_mail", error=error, hidden=hidden)

    async def _show(self, visit: Visit, error: MatrixError | None = None) -> Response:
        addresses = await self._ids.all_of(visit.user_id)
        return self._page.page(
            visit, "addresses", error=error, addresses=addresses, can_add=self._can_add
        )
