"""The content repository."""

from typing import Any

from homeserver.client_api.media.downloads import MediaDownloadsApi
from homeserver.client_api.media.thumbnails import ThumbnailsApi
from homeserver.client_api.media.uploads import MediaUploadsApi
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.config.settings import Settings
from homeserver.media.downloads import Downloads
from homeserver.media.files.content_store import ContentStore, media_folder
from homeserver.media.thumbnails.thumbnails import Thumbnails
from homeserver.media.thumbnails.workers import ThumbnailWorkers
from homeserver.media.upload_quotas import UploadQuotas
from homeserver.media.upload_waits import UploadWaits
from homeserver.media.uploads import Uploads
from homeserver.protocol.media.thumbnail_sizes import ThumbnailSize
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route

DISK_THREADS = 8
MAX_WAITING = 10_000  # reads and writes that wait for a thread


class MediaRepository:
    """All objects of the area."""

    def __init__(self, reactor: Any, settings: Settings, db: Database) -> None:
        name, sizes = settings.server_name, settings.media.thumbnail_sizes
        self._settings = settings.media
        self._pool = ThreadPool(reactor, "media files", size=DISK_THREADS, max_waiting=MAX_WAITING)
        self._store = ContentStore(
            media_folder(settings), db, self._pool, min_free_space=settings.media.min_free_space
        )
        self._workers = ThumbnailWorkers(
            reactor,
            size=settings.media.thumbnail_processes,
            max_pixels=settings.media.max_thumbnail_pixels,
        )
        self._thumbnails = Thumbnails(
            db,
            reactor,
            self._store,
            self._workers,
            [ThumbnailSize(size.width, size.height, size.method) for size in sizes],
            settings.media.thumbnail_processes,
        )
        waits = UploadWaits(reactor)
        quotas = UploadQuotas(db, settings.media)
        self._uploads = Uploads(db, reactor, name, settings.media, self._store, quotas, waits)
        self.downloads = Downloads(db, reactor, name, self._store, waits)

    async def start(self) -> None:
        """Prepare the folders."""
        await self._store.open()
        self._workers.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self._workers.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return [
            *MediaUploadsApi(self._uploads, self._settings.max_upload).routes(),
            *MediaDownloadsApi(self.downloads, self._pool).routes(),
            *ThumbnailsApi(self.downloads, self._thumbnails, self._pool).routes(),
        ]
