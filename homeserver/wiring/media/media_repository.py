"""The content repository."""

from typing import Any

from federation.api.media import MediaApi
from homeserver.client_api.media.downloads import MediaDownloadsApi
from homeserver.client_api.media.file_responses import FileResponses
from homeserver.client_api.media.thumbnails import ThumbnailsApi
from homeserver.client_api.media.uploads import MediaUploadsApi
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.config.settings import Settings
from homeserver.media.downloads import Downloads
from homeserver.media.files.content_storage import ContentStorage
from homeserver.media.files.content_store import ContentStore, media_folder
from homeserver.media.files.disk import Disk
from homeserver.media.files.local_storage import LocalStorage
from homeserver.media.files.s3.bucket import Bucket
from homeserver.media.files.s3.s3_storage import S3Storage
from homeserver.media.files.staging import Staging
from homeserver.media.remote.remote_files import RemoteFiles
from homeserver.media.remote.remote_media_port import RemoteMediaPort
from homeserver.media.retention import MediaRetention
from homeserver.media.thumbnails.thumbnails import Thumbnails, thumbnail_workers
from homeserver.media.upload_quotas import UploadQuotas
from homeserver.media.upload_waits import UploadWaits
from homeserver.media.uploads import Uploads
from homeserver.protocol.media.thumbnail_sizes import ThumbnailSize
from homeserver.storage.database.database import Database
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route

DISK_THREADS = 8
MAX_WAITING = 10_000  # reads and writes that wait for a thread


class MediaRepository:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        remote_media: RemoteMediaPort,
        rate_limits: RateLimits,
    ) -> None:
        name, rules = settings.server_name, settings.media
        self._server_name, self._max_upload = name, rules.max_upload
        threads = ThreadPool(reactor, "media files", size=DISK_THREADS, max_waiting=MAX_WAITING)
        disk = Disk(threads, min_free_space=rules.min_free_space)
        staging = Staging(media_folder(settings), disk)
        store = self.store = ContentStore(db, staging, _storage(reactor, settings, staging))
        processes = rules.thumbnail_processes
        self.workers = thumbnail_workers(
            reactor, size=processes, max_pixels=rules.max_thumbnail_pixels
        )
        sizes = [
            ThumbnailSize(size.width, size.height, size.method) for size in rules.thumbnail_sizes
        ]
        self._thumbnails = Thumbnails(db, reactor, store, self.workers, sizes, processes)
        waits, self.quotas = UploadWaits(reactor), UploadQuotas(db, rules)
        self._uploads = Uploads(db, reactor, name, rules, store, self.quotas, waits)
        self.remote_files = RemoteFiles(db, reactor, rules, store, remote_media)
        self.retention = MediaRetention(db, reactor, settings, store)
        self._downloads = Downloads(db, reactor, name, rules, waits, self.remote_files, rate_limits)

    async def start(self) -> None:
        """Prepare the folders, and start background work."""
        await self.store.open()
        self.workers.start()
        self.remote_files.start()
        self.retention.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self.retention.stop()
        await self.remote_files.stop()
        await self.workers.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        responses = FileResponses(self.store)
        apis: list[Any] = [
            MediaUploadsApi(self._uploads, self._max_upload),
            MediaDownloadsApi(self._downloads, responses),
            ThumbnailsApi(self._server_name, self._downloads, self._thumbnails, responses),
        ]
        return [route for api in apis for route in api.routes()]

    def federation_routes(self) -> list[Route]:
        """The endpoints for other servers."""
        return MediaApi(self._downloads, self._thumbnails, self.store).routes()


def _storage(reactor: Any, settings: Settings, staging: Staging) -> ContentStorage:
    """The configured storage. Raises `ConfigError`."""
    if settings.media.storage == "local":
        return LocalStorage(media_folder(settings), staging.disk)
    return S3Storage(Bucket(reactor, settings.media.s3), staging, settings.server_name)
