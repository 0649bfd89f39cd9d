"""The page by which a user ends mails about unread messages, without logging in.

Opening it changes nothing, since mail servers open links to scan for viruses. The button on it, and
the one that mail programs show (RFC 8058), send a POST request.
"""

import msgspec

from homeserver.outbound.digest_mails import UNSUBSCRIBE_PATH
from homeserver.push.pushers.pushers import Pushers
from homeserver.web.html import Allowed, Pages
from homeserver.web.routes import Auth, Response, Route


class UnsubscribeQuery(msgspec.Struct):
    token: str = ""


class UnsubscribeApi:
    def __init__(self, pushers: Pushers, pages: Pages) -> None:
        self._pushers = pushers
        self._pages = pages

    def routes(self) -> list[Route]:
        return [
            Route(
                method, UNSUBSCRIBE_PATH, handler, auth=Auth.NONE, limit="availability", page=True
            )
            for method, handler in (("GET", self.show_unsubscribe), ("POST", self.unsubscribe))
        ]

    async def show_unsubscribe(self, query: UnsubscribeQuery) -> Response:
        """Ask whether the mails are to end."""
        pusher = await self._pushers.find_by_unsubscribe_token(query.token)
        return self._page("asked") if pusher is not None else self._page("invalid", 404)

    async def unsubscribe(self, query: UnsubscribeQuery, body: bytes) -> Response:
        """End the mails; says the same if they have ended before."""
        await self._pushers.unsubscribe(query.token)
        return self._page("done")

    def _page(self, outcome: str, status: int = 200) -> Response:
        allowed = Allowed(form="'self'")
        return self._pages.page("unsubscribe", status=status, allowed=allowed, outcome=outcome)
