"""Thumbnails over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from typing import Annotated

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads
from homeserver.media.served_file import Conditions, ServedFile, serve_file
from homeserver.media.thumbnails.thumbnails import Thumbnails, Wish
from homeserver.protocol.media.thumbnail_sizes import UNBOUNDED, Method
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route, Streamed

THUMBNAIL = "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}"
OLD_THUMBNAIL = "/_matrix/media/v3/thumbnail/{server_name}/{media_id}"

Pixels = Annotated[int, msgspec.Meta(ge=1, le=UNBOUNDED)]


class ThumbnailQuery(msgspec.Struct):
    width: Pixels
    height: Pixels
    method: Method = "scale"
    animated: bool = False
    timeout_ms: int = DEFAULT_WAIT_MS

    def wish(self) -> Wish:
        """The requested thumbnail."""
        return Wish(self.width, self.height, self.method, self.animated)


class ThumbnailsApi:
    def __init__(self, downloads: Downloads, thumbnails: Thumbnails, pool: ThreadPool) -> None:
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._pool = pool

    def routes(self) -> list[Route]:
        return [
            Route("GET", THUMBNAIL, self.get_content_thumbnail_authed, Auth.GUEST, "media"),
            Route("GET", OLD_THUMBNAIL, self.get_content_thumbnail, Auth.NONE, "media"),
        ]

    async def get_content_thumbnail_authed(
        self,
        caller: Requester,
        server_name: str,
        media_id: str,
        query: ThumbnailQuery,
        request: Request,
    ) -> Streamed | Response:
        """Download a thumbnail."""
        picture = await self._downloads.find(server_name, media_id, query.timeout_ms)
        thumbnail = await self._thumbnails.find(picture, query.wish(), caller.user_id)
        return self._respond(request, thumbnail, is_public=False)

    async def get_content_thumbnail(
        self, server_name: str, media_id: str, query: ThumbnailQuery, request: Request
    ) -> Streamed | Response:
        """Download a thumbnail of a file that needs no authentication."""
        picture = await self._downloads.find_public(server_name, media_id, query.timeout_ms)
        thumbnail = await self._thumbnails.find(picture, query.wish(), request.address)
        return self._respond(request, thumbnail, is_public=True)

    def _respond(
        self, request: Request, file: ServedFile, *, is_public: bool
    ) -> Streamed | Response:
        conditions = Conditions(
            request.header(b"Range"), request.header(b"If-Range"), request.header(b"If-None-Match")
        )
        return serve_file(file, self._pool, conditions, is_public=is_public)
