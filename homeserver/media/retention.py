"""How long files are kept: those of other servers, pictures of URL previews, unused addresses, and
what a crash left.

Files of local users stay until they are deleted. Those of other servers can be fetched again.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repo-security-considerations
"""

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.config.settings import Settings
from homeserver.media.files.content_store import ContentStore
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import (
    MAX_BIGINT,
    delete_expired,
    delete_media,
    delete_unused_remote,
    remote_usage,
)
from homeserver.storage.media.url_previews import count_previews, delete_oldest_previews

CLEANUP_SECONDS = 3_600.0
DAY_MS = 86_400_000
ORPHANS_EVERY = 24  # runs
MAX_DELETED = 500  # files of one statement

log = Logger()


class MediaRetention:
    """Deletes files every hour, and looks for contents without a name once a day."""

    def __init__(self, db: Database, clock: Clock, settings: Settings, store: ContentStore) -> None:
        self._db = db
        self._clock = clock
        self._server_name = settings.server_name
        self._settings = settings.media
        self._previews = settings.url_previews
        self._store = store
        self._runs = 0
        self._cleaning = PeriodicTask(
            clock, CLEANUP_SECONDS, self.clean_up, name="the deletion of old media"
        )

    def start(self) -> None:
        """Begin to clean up every hour."""
        self._cleaning.start()

    def stop(self) -> Deferred[None]:
        """Clean up no more; fires when the current run has ended."""
        return self._cleaning.stop()

    async def clean_up(self) -> None:
        """Delete what is too old or too much, a part at a time."""
        now = now_ms(self._clock)
        # An upload that was in time may still be in progress.
        await self._db.run(delete_expired, now - DAY_MS)
        await self._delete_previews(now - self._previews.keep_days * DAY_MS, MAX_BIGINT)
        excess = await self._db.run(count_previews) - self._previews.max_previews
        await self._delete_previews(now, excess)
        deleted = await self._delete_remote(now - self._settings.remote_days * DAY_MS)
        deleted += await self._shrink_cache(now)
        if deleted:
            log.info("deleted {count} files of other servers from the cache", count=deleted)
        if self._runs % ORPHANS_EVERY == 0:
            orphans = await self._store.release_orphans(lambda: self._cleaning.is_started)
            if orphans:
                log.info("deleted {count} media contents that nothing named", count=orphans)
        self._runs += 1

    async def _delete_previews(self, fetched_before: int, most: int) -> None:
        """Delete old previews, at most so many of them, and then their pictures.

        A picture that a crash leaves behind is one of those that are not used.
        """
        while most > 0:
            part = min(most, MAX_DELETED)
            deleted = await self._db.run(delete_oldest_previews, fetched_before, part)
            for media_id in filter(None, deleted):
                name = MediaId(self._server_name, media_id)
                _, sha256 = await self._db.run(delete_media, name)
                if sha256 is not None:
                    await self._store.release([sha256])
            if len(deleted) < part:
                break
            most -= part

    async def _delete_remote(self, used_before: int) -> int:
        deleted, part = 0, MAX_DELETED
        while part == MAX_DELETED:
            gone = await self._db.run(delete_unused_remote, used_before, MAX_DELETED)
            await self._store.release(sha256 for sha256, _ in gone)
            part = len(gone)
            deleted += part
        return deleted

    async def _shrink_cache(self, now: int) -> int:
        usage = await self._db.run(remote_usage)
        excess, deleted = usage.bytes - self._settings.remote_cache_size, 0
        while excess > 0:
            gone = await self._db.run(delete_unused_remote, now, MAX_DELETED, excess)
            if not gone:
                break
            await self._store.release(sha256 for sha256, _ in gone)
            excess -= sum(size for _, size in gone)
            deleted += len(gone)
        return deleted
