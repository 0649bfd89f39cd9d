"""Downloads over the API: for users, and at the deprecated endpoints for anyone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads
from homeserver.media.served_file import Conditions, ServedFile, serve_file
from homeserver.protocol.media.content_disposition import normal_filename
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route, Streamed

DOWNLOAD = "/_matrix/client/v1/media/download/{server_name}/{media_id}"
OLD_DOWNLOAD = "/_matrix/media/v3/download/{server_name}/{media_id}"


class DownloadQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS


class MediaDownloadsApi:
    def __init__(self, downloads: Downloads, pool: ThreadPool) -> None:
        self._downloads = downloads
        self._pool = pool

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
        file = await self._downloads.find(server_name, media_id, query.timeout_ms)
        return self._respond(request, file, is_public=False)

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
        file = await self._downloads.find(server_name, media_id, query.timeout_ms)
        return self._respond(request, _renamed(file, file_name), is_public=False)

    async def get_content(
        self, server_name: str, media_id: str, query: DownloadQuery, request: Request
    ) -> Streamed | Response:
        """Download a file that needs no authentication."""
        file = await self._downloads.find_public(server_name, media_id, query.timeout_ms)
        return self._respond(request, file, is_public=True)

    async def get_content_override_name(
        self,
        server_name: str,
        media_id: str,
        file_name: str,
        query: DownloadQuery,
        request: Request,
    ) -> Streamed | Response:
        """Download a file that needs no authentication under another name."""
        file = await self._downloads.find_public(server_name, media_id, query.timeout_ms)
        return self._respond(request, _renamed(file, file_name), is_public=True)

    def _respond(
        self, request: Request, file: ServedFile, *, is_public: bool
    ) -> Streamed | Response:
        conditions = Conditions(
            request.header(b"Range"), request.header(b"If-Range"), request.header(b"If-None-Match")
        )
        return serve_file(file, self._pool, conditions, is_public=is_public)


def _route(path: str, handler: Callable[..., Any], auth: Auth) -> Route:
    return Route("GET", path, handler, auth, "media", cancellable=True)


def _renamed(file: ServedFile, file_name: str) -> ServedFile:
    return replace(file, filename=normal_filename(file_name))
