"""Thumbnails over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.media.file_responses import FileResponses
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads, FoundFile
from homeserver.media.remote.arriving_file import ArrivingFile
from homeserver.media.served_file import ServedFile
from homeserver.media.thumbnails.thumbnails import Pixels, Thumbnails, Wish
from homeserver.protocol.errors import RemoteTooLarge, TooLarge
from homeserver.protocol.media.thumbnail_sizes import Method
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route, Streamed

THUMBNAIL = "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}"
OLD_THUMBNAIL = "/_matrix/media/v3/thumbnail/{server_name}/{media_id}"


class ThumbnailQuery(msgspec.Struct):
    width: Pixels
    height: Pixels
    method: Method = "scale"
    animated: bool = False
    timeout_ms: int = DEFAULT_WAIT_MS
    allow_remote: bool = True

    def wish(self) -> Wish:
        """The requested thumbnail."""
        return Wish(self.width, self.height, self.method, self.animated)


class ThumbnailsApi:
    def __init__(
        self,
        server_name: str,
        downloads: Downloads,
        thumbnails: Thumbnails,
        responses: FileResponses,
    ) -> None:
        self._server_name = server_name
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._responses = responses

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
        file = await self._downloads.find(caller, server_name, media_id, query.timeout_ms)
        thumbnail = await self._find(server_name, file, query.wish(), caller.user_id)
        return self._responses.respond(request, thumbnail)

    async def get_content_thumbnail(
        self, server_name: str, media_id: str, query: ThumbnailQuery, request: Request
    ) -> Streamed | Response:
        """Download a thumbnail of a file that needs no authentication."""
        file = await self._downloads.find_public(
            network_of(request.address),
            server_name,
            media_id,
            query.timeout_ms,
            may_fetch=query.allow_remote,
        )
        thumbnail = await self._find(server_name, file, query.wish(), network_of(request.address))
        return self._responses.respond(request, thumbnail, is_public=True)

    async def _find(self, server_name: str, file: FoundFile, wish: Wish, party: str) -> ServedFile:
        picture = await file.completed() if isinstance(file, ArrivingFile) else file
        try:
            return await self._thumbnails.find(picture, wish, party)
        except TooLarge as error:
            if server_name == self._server_name:
                raise
            raise RemoteTooLarge(str(error)) from error
