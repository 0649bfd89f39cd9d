"""Files of this server, for other servers.

The response has two parts: metadata, which are empty, and the file.

Spec: https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from federation.paths import V1
from homeserver.media.downloads import DEFAULT_WAIT_MS, Downloads
from homeserver.media.files.content_store import ContentStore
from homeserver.media.served_file import ServedFile
from homeserver.media.thumbnails.thumbnails import Pixels, Thumbnails, Wish
from homeserver.protocol.media.multipart import after_file, before_file
from homeserver.protocol.media.thumbnail_sizes import Method
from homeserver.web.routes import Auth, Route, Streamed


class MediaQuery(msgspec.Struct):
    timeout_ms: int = DEFAULT_WAIT_MS


class MediaThumbnailQuery(msgspec.Struct):
    width: Pixels
    height: Pixels
    method: Method = "scale"
    animated: bool = False
    timeout_ms: int = DEFAULT_WAIT_MS


class MediaApi:
    def __init__(self, downloads: Downloads, thumbnails: Thumbnails, store: ContentStore) -> None:
        self._downloads = downloads
        self._thumbnails = thumbnails
        self._store = store

    def routes(self) -> list[Route]:
        download, thumbnail = (
            f"{V1}/media/{kind}/{{media_id}}" for kind in ("download", "thumbnail")
        )
        return [
            Route("GET", download, self.get_content, Auth.SERVER, "media", cancellable=True),
            Route("GET", thumbnail, self.get_content_thumbnail, Auth.SERVER, "media"),
        ]

    async def get_content(self, media_id: str, query: MediaQuery) -> Streamed:
        """A file of this server."""
        return self._respond(await self._downloads.find_local(media_id, query.timeout_ms))

    async def get_content_thumbnail(
        self, origin: str, media_id: str, query: MediaThumbnailQuery
    ) -> Streamed:
        """A thumbnail of a file of this server."""
        picture = await self._downloads.find_local(media_id, query.timeout_ms)
        wish = Wish(query.width, query.height, query.method, query.animated)
        return self._respond(await self._thumbnails.find(picture, wish, origin))

    def _respond(self, file: ServedFile) -> Streamed:
        # It is in no file: nobody can guess it.
        boundary = secrets.token_hex(24)
        before, after = before_file(boundary, file.headers()), after_file(boundary)
        return Streamed(
            self._parts(before, file, after),
            headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
            size=len(before) + file.size + len(after),
        )

    async def _parts(
        self, before: bytes, file: ServedFile, after: bytes
    ) -> AsyncGenerator[bytes, None]:
        is_first = True
        async with aclosing(self._store.read(file.sha256, 0, file.size)) as parts:
            async for part in parts:
                # An error of the first read is still an ordinary error response.
                if is_first:
                    yield before
                    is_first = False
                yield part
        if is_first:
            yield before
        yield after
