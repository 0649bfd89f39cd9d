"""The page that the link in a mail leads to.

Opening it confirms the address, except for a new password: mail servers open links to scan for
viruses, which must not cost a user the account. There the page has a button.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#email-associations
"""

from urllib.parse import urlsplit

import msgspec

from homeserver.accounts.third_party_ids.address_validation import AddressValidation
from homeserver.outbound.validation_mails import LINK_PATH
from homeserver.protocol.third_party_ids.address_validation import PASSWORD
from homeserver.web.html import Allowed, Pages
from homeserver.web.routes import Auth, Response, Route


class ValidationQuery(msgspec.Struct):
    sid: str = ""
    token: str = ""


class ValidationPageApi:
    def __init__(self, validation: AddressValidation, pages: Pages) -> None:
        self._validation = validation
        self._pages = pages

    def routes(self) -> list[Route]:
        return [
            Route(method, LINK_PATH, handler, auth=Auth.NONE, limit="availability", page=True)
            for method, handler in (
                ("GET", self.show_validation),
                ("POST", self.confirm_validation),
            )
        ]

    async def show_validation(self, query: ValidationQuery) -> Response:
        """Confirm the address, or show a button that does."""
        return await self._respond(query, is_certain=False)

    async def confirm_validation(self, query: ValidationQuery, body: bytes) -> Response:
        """Confirm the address: the user has pressed the button."""
        return await self._respond(query, is_certain=True)

    async def _respond(self, query: ValidationQuery, *, is_certain: bool) -> Response:
        session = await self._validation.find_by_token(query.sid, query.token)
        if session is None:
            return self._page("invalid", 404)
        if session.purpose == PASSWORD and not is_certain:
            return self._page("asked", then=session.next_link)
        await self._validation.confirm(session)
        if session.next_link is not None:
            return Response(
                303, b"", {"Location": session.next_link, "Referrer-Policy": "no-referrer"}
            )
        return self._page("done")

    def _page(self, outcome: str, status: int = 200, then: str | None = None) -> Response:
        form = "'self'"
        if then is not None:
            # Browsers apply a form's policy to the redirect of its response too.
            form += f" {urlsplit(then).scheme}:"
        return self._pages.page(
            "validation", status=status, allowed=Allowed(form=form), outcome=outcome
        )
