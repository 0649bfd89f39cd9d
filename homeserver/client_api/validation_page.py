"""The page that the link in a mail leads to.

To open it confirms the address, but for a new password: mail servers open links to look for
viruses, and nobody should lose an account by that. There the page has a button.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#email-associations
"""

from urllib.parse import urlsplit

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape

from homeserver.accounts.address_validation import PASSWORD, AddressValidation
from homeserver.web.routes import Answer, Auth, Route
from homeserver.web.validation_mails import LINK_PATH

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none';"
    " form-action 'self'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}


class ValidationQuery(msgspec.Struct):
    sid: str = ""
    token: str = ""


class ValidationPageApi:
    def __init__(self, validation: AddressValidation, server_name: str) -> None:
        self._validation = validation
        self._server_name = server_name
        environment = Environment(
            loader=PackageLoader("homeserver.web", "templates"),
            autoescape=select_autoescape(),
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("validation.html")

    def routes(self) -> list[Route]:
        return [
            Route("GET", LINK_PATH, self.show_validation, auth=Auth.NONE, limit="availability"),
            Route("POST", LINK_PATH, self.confirm_validation, auth=Auth.NONE, limit="availability"),
        ]

    async def show_validation(self, query: ValidationQuery) -> Answer:
        """Confirm the address, or ask whether it should be."""
        return await self._answer(query, is_certain=False)

    async def confirm_validation(self, query: ValidationQuery, body: bytes) -> Answer:
        """Confirm the address: somebody has pressed the button."""
        return await self._answer(query, is_certain=True)

    async def _answer(self, query: ValidationQuery, *, is_certain: bool) -> Answer:
        session = await self._validation.find_by_token(query.sid, query.token)
        if session is None:
            return self._page("invalid", 404)
        if session.purpose == PASSWORD and not is_certain:
            return self._page("asked", then=session.next_link)
        await self._validation.confirm(session)
        if session.next_link is not None:
            return Answer(303, b"", {**HEADERS, "Location": session.next_link})
        return self._page("done")

    def _page(self, outcome: str, status: int = 200, then: str | None = None) -> Answer:
        page = self._template.render(outcome=outcome, server_name=self._server_name)
        policy = POLICY
        if then is not None:
            # Browsers hold a form's policy against where its answer redirects to, too.
            parts = urlsplit(then)
            policy = f"{POLICY} {parts.scheme}:"
        return Answer(status, page.encode(), {**HEADERS, "Content-Security-Policy": policy})
