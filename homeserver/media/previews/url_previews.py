"""URL previews: found in the database, or fetched once for all who request them.

A fetch belongs to no client: it continues if they leave. A preview is kept, so that messages of
last week are shown with the pages of last week; a failure is remembered for five minutes. What a
client learns of a failure is the same for all reasons: it must not find out what is in the network
of this server.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
"""

from hashlib import sha256

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.media.previews.permitted_urls import PermittedUrls, host_of
from homeserver.media.previews.preview_fetcher import (
    MAX_FETCHES,
    FetchedPreview,
    PreviewFetcher,
)
from homeserver.media.worker_processes import WorkerFailed
from homeserver.outbound.http_client import OutboundError
from homeserver.protocol.errors import (
    Forbidden,
    LimitExceeded,
    RemoteServerFailed,
    Unavailable,
)
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import find_media
from homeserver.storage.media.url_previews import StoredPreview, add_preview, find_preview
from homeserver.web.rate_limits import RateLimits

MAX_FETCHES_OF_HOST = 4
MAX_WAITING_OF_HOST = 30
MAX_WAITING = 100
MAX_REQUESTS = 1_000  # of clients that wait for a fetch
MAX_REQUESTS_OF_USER = 8
MAX_WAITING_OF_USER = 50
MAX_WAITING_REQUESTS = 5_000
FAILURE_SECONDS = 300.0
FAILURES_CACHED = 10_000
RETRY_AFTER_MS = 5_000

log = Logger()


class PreviewCounts(msgspec.Struct):
    """The outcomes of requests and fetches since the start."""

    cached: int = 0
    fetched: int = 0
    failed: int = 0
    refused: int = 0


class UrlPreviews:
    """The previews of all URLs. `await stop()` to end fetches in progress."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        server_name: str,
        urls: PermittedUrls,
        fetcher: PreviewFetcher,
        rate_limits: RateLimits,
    ) -> None:
        self.counts = PreviewCounts()
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._urls = urls
        self._fetcher = fetcher
        self._rate_limits = rate_limits
        self._failed: LruCache[bytes, float] = LruCache("failed_url_previews", FAILURES_CACHED)
        self._flights: SingleFlight[bytes, bytes] = SingleFlight()
        self._fetches: set[Deferred[bytes]] = set()
        self._requests = FairSlots(
            MAX_REQUESTS,
            share=MAX_REQUESTS_OF_USER,
            max_waiting=MAX_WAITING_OF_USER,
            max_waiting_in_all=MAX_WAITING_REQUESTS,
        )
        self._hosts = FairSlots(
            MAX_FETCHES,
            share=MAX_FETCHES_OF_HOST,
            max_waiting=MAX_WAITING_OF_HOST,
            max_waiting_in_all=MAX_WAITING,
        )

    async def stop(self) -> None:
        """End fetches in progress."""
        for fetch in list(self._fetches):
            fetch.cancel()

    async def find(self, caller: Requester, url: str, ts: int | None) -> bytes:
        """The preview of a URL as it was at a time (ms) if that is known, or else as it is now.

        Raises `InvalidParam`, `Forbidden`, `LimitExceeded`, `Unavailable`, or `RemoteServerFailed`.
        """
        try:
            url = self._urls.parse(url)
        except Forbidden:
            self.counts.refused += 1
            raise
        now = now_ms(self._clock)
        key = sha256(url.encode()).digest()
        stored = await self._find_stored(key, now if ts is None else max(0, min(ts, now)), now)
        if stored is not None:
            self.counts.cached += 1
            return stored
        self._check_failed(key)
        self._rate_limits.check("url_preview", caller)
        try:
            async with self._requests.slot(caller.user_id):
                return await self._flights.join(key, lambda: self._run(key, url))
        except QueueFull as error:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many previews are being fetched") from error

    async def _find_stored(self, key: bytes, at: int, now: int) -> bytes | None:
        found = await self._db.run(find_preview, key, at, now)
        if found is None:
            return None
        if found.media_id is not None:
            # It may have left the cache of files before the preview.
            name = MediaId(self._server_name, found.media_id)
            if await self._db.run(find_media, name) is None:
                return None
        return found.preview

    def _check_failed(self, key: bytes) -> None:
        until = self._failed.get(key)
        if until is not None and until > self._clock.seconds():
            raise RemoteServerFailed("The page could not be fetched")

    async def _run(self, key: bytes, url: str) -> bytes:
        fetch = Deferred.fromCoroutine(self._fetch(key, url))
        self._fetches.add(fetch)
        try:
            return await fetch
        except CancelledError as error:
            raise Unavailable("The server is about to stop") from error
        finally:
            self._fetches.discard(fetch)

    async def _fetch(self, key: bytes, url: str) -> bytes:
        async with self._hosts.slot(host_of(url)):
            # Another fetch may have ended between the search and this one.
            now = now_ms(self._clock)
            self._check_failed(key)
            stored = await self._find_stored(key, now, now)
            if stored is not None:
                return stored
            try:
                fetched = await self._fetcher.fetch(url)
            except (OutboundError, WorkerFailed) as error:
                log.debug("no preview of a page at {host}: {error}", host=host_of(url), error=error)
                self.counts.failed += 1
                self._failed.put(key, self._clock.seconds() + FAILURE_SECONDS)
                raise RemoteServerFailed("The page could not be fetched") from error
        self.counts.fetched += 1
        return await self._store(key, fetched)

    async def _store(self, key: bytes, fetched: FetchedPreview) -> bytes:
        image = fetched.image
        properties = {**fetched.properties, **(image.properties() if image is not None else {})}
        preview = msgspec.json.encode(properties)
        now = now_ms(self._clock)
        media_id = None if image is None else image.name.media_id
        expires_at = now + int(fetched.lifetime * 1_000)
        await self._db.run(add_preview, key, StoredPreview(now, expires_at, preview, media_id))
        return preview
