"""URL previews over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.media.previews.url_previews import UrlPreviews
from homeserver.web.routes import Route

PREVIEW = "/_matrix/client/v1/media/preview_url"
OLD_PREVIEW = "/_matrix/media/v3/preview_url"


class UrlPreviewQuery(msgspec.Struct):
    url: str
    ts: int | None = None


class UrlPreviewsApi:
    def __init__(self, previews: UrlPreviews) -> None:
        self._previews = previews

    def routes(self) -> list[Route]:
        return [
            Route("GET", PREVIEW, self.get_url_preview_authed, limit="media", cancellable=True),
            Route("GET", OLD_PREVIEW, self.get_url_preview, limit="media", cancellable=True),
        ]

    async def get_url_preview_authed(
        self, caller: Requester, query: UrlPreviewQuery
    ) -> msgspec.Raw:
        """What a web page says of itself."""
        return msgspec.Raw(await self._previews.find(caller, query.url, query.ts))

    async def get_url_preview(self, caller: Requester, query: UrlPreviewQuery) -> msgspec.Raw:
        """What a web page says of itself, at the deprecated endpoint."""
        return await self.get_url_preview_authed(caller, query)
