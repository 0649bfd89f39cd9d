"""Downloads over the API: for users, and at the deprecated endpoints for anyone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from collections.abc import Callable
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.media.file_responses import FileResponses
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads, FoundFile
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route, Streamed

DOWNLOAD = "/_matrix/client/v1/media/download/{server_name}/{media_id}"
OLD_DOWNLOAD = "/_matrix/media/v3/download/{server_name}/{media_id}"


class DownloadQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS


class PublicDownloadQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS
    allow_remote: bool = True


class MediaDownloadsApi:
    def __init__(self, downloads: Downloads, responses: FileResponses) -> None:
        self._downloads = downloads
        self._responses = responses

    def routes(self) -> list[Route]:
        by_name = "/{file_name}"
        return [
            _route(DOWNLOAD, self.get_content_authed, Auth.GUEST),
            _route(DOWNLOAD + by_name, self.get_content_override_name_authed, Auth.GUEST),
            _route(OLD_DOWNLOAD, self.get_content, Auth.NONE),
            _route(OLD_DOWNLOAD + by_name, self.get_content_override_name, Auth.NONE),
        ]

    async def get_content_authed(
        self,
        caller: Requester,
        server_name: str,
        media_id: str,
        query: DownloadQuery,
        request: Request,
    ) -> Streamed | Response:
        """Download a file."""
        file = await self._downloads.find(caller, server_name, media_id, query.timeout_ms)
        return self._responses.respond(request, file)

    async def get_content_override_name_authed(
        self,
        caller: Requester,
        server_name: str,
        media_id: str,
        file_name: str,
        query: DownloadQuery,
        request: Request,
    ) -> Streamed | Response:
        """Download a file under another name."""
        file = await self._downloads.find(caller, server_name, media_id, query.timeout_ms)
        return self._responses.respond(request, file, file_name)

    async def get_content(
        self, server_name: str, media_id: str, query: PublicDownloadQuery, request: Request
    ) -> Streamed | Response:
        """Download a file that needs no authentication."""
        file = await self._find_public(server_name, media_id, query, request)
        return self._responses.respond(request, file, is_public=True)

    async def get_content_override_name(
        self,
        server_name: str,
        media_id: str,
        file_name: str,
        query: PublicDownloadQuery,
        request: Request,
    ) -> Streamed | Response:
        """Download a file that needs no authentication under another name."""
        file = await self._find_public(server_name, media_id, query, request)
        return self._responses.respond(request, file, file_name, is_public=True)

    async def _find_public(
        self, server_name: str, media_id: str, query: PublicDownloadQuery, request: Request
    ) -> FoundFile:
        return await self._downloads.find_public(
            network_of(request.address),
            server_name,
            media_id,
            query.timeout_ms,
            may_fetch=query.allow_remote,
        )


def _route(path: str, handler: Callable[..., Any], auth: Auth) -> Route:
    return Route("GET", path, handler, auth, "media", cancellable=True)
