"""The pictures of previews: fetched, measured, and stored as files of this server.

Such a file has no uploader, as the cached files of other servers: it counts against no quota, and
is deleted with its preview, or before if the cache is full. A crash between the file and the
preview leaves one that nobody uses, which is deleted like any unused file of the cache.
"""

import secrets

import msgspec
from twisted.web.iweb import IResponse

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.settings import Settings
from homeserver.media.files.content_store import ContentStore
from homeserver.media.worker_processes import WorkerProcesses
from homeserver.outbound.http_client import OutboundError
from homeserver.outbound.streamed_body import streamed_body
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import NewMedia, add_media

BATCH = 65_536  # bytes that are written at a time


class PreviewImage(msgspec.Struct, frozen=True):
    """A stored picture; `size` is in bytes."""

    name: MediaId
    content_type: str
    width: int
    height: int
    size: int

    def properties(self) -> dict[str, str | int]:
        """What a preview says of it."""
        return {
            "og:image": str(self.name),
            "og:image:type": self.content_type,
            "og:image:width": self.width,
            "og:image:height": self.height,
            "matrix:image:size": self.size,
        }


class PreviewImages:
    """Receives pictures, which the `parsers` measure."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: Settings,
        store: ContentStore,
        parsers: WorkerProcesses,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = settings.server_name
        self._max_size = min(settings.url_previews.max_image, settings.media.max_remote_file)
        self._is_public = settings.media.unauthenticated_access
        self._store = store
        self._parsers = parsers

    async def receive(self, response: IResponse) -> PreviewImage:
        """Store the picture that a response has.

        Raises `OutboundError` if it is none that a preview can have, and `Unavailable`.
        """
        announced = response.length if isinstance(response.length, int) else None
        self._check_size(announced or 0)
        incoming = await self._store.begin(announced)
        try:
            with streamed_body(response) as body:
                while parts := await body.read(BATCH):
                    self._check_size(incoming.size + sum(map(len, parts)))
                    await incoming.write(parts)
            sha256 = await incoming.close()
            found = await self._parsers.run({"picture": str(incoming.path)})
            if "error" in found:
                raise OutboundError(f"it is not a picture: {found['error']}")
            name = MediaId(self._server_name, secrets.token_urlsafe(18))
            image = PreviewImage(
                name, found["type"], found["width"], found["height"], incoming.size
            )
            new = NewMedia(
                name,
                None,
                now_ms(self._clock),
                sha256,
                image.size,
                image.content_type,
                None,
                self._is_public,
            )
            await self._store.keep(incoming, sha256, lambda: self._db.run(add_media, new))
            return image
        finally:
            await incoming.discard()

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise OutboundError("the picture is too large")
