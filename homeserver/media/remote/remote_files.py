"""Files of other servers: found in the cache, or fetched once for all who request them.

A fetch belongs to no client: it continues if they leave, and its outcome is cached, a failure for a
minute. A server that sends nothing for a while loses its fetch. The number of fetches is bounded,
in all and from one server.

Spec: https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.config.sections.media import MediaSettings
from homeserver.media.files.content_store import ContentStore
from homeserver.media.remote.arriving_file import ArrivingFile
from homeserver.media.remote.remote_media_port import RemoteMediaPort
from homeserver.media.served_file import ServedFile
from homeserver.media.upload_waits import MAX_WAIT_MS
from homeserver.protocol.errors import (
    LimitExceeded,
    MatrixError,
    NotFound,
    NotYetUploaded,
    RemoteServerFailed,
    Unavailable,
)
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import NewMedia, add_media, find_media

MAX_FETCHES = 50
MAX_FETCHES_OF_SERVER = 8
MAX_WAITING_OF_SERVER = 100
MAX_WAITING = 1_000
STALL_CHECK_SECONDS = 10.0
MAX_STALLS = 4  # checks in a row without progress
FAILURE_SECONDS = 60.0
NOT_YET_SECONDS = 5.0
FAILURES_CACHED = 10_000
RETRY_AFTER_MS = 5_000

log = Logger()


class _Fetch(msgspec.Struct):
    """A fetch in progress, or one that waits for a slot."""

    file: ArrivingFile
    has_slot: bool = False
    has_arrived: bool = False  # it is being stored
    running: Deferred[None] | None = None
    progress: int = 0
    stalls: int = 0


class _FailedFetch(msgspec.Struct, frozen=True):
    error: MatrixError
    until: float


class RemoteFiles:
    """The files of all other servers. `await stop()` to end fetches in progress."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: MediaSettings,
        store: ContentStore,
        remote: RemoteMediaPort,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._store = store
        self._remote = remote
        self._fetches: dict[MediaId, _Fetch] = {}
        self._failed: LruCache[MediaId, _FailedFetch] = LruCache("failed_media", FAILURES_CACHED)
        self._slots = FairSlots(
            MAX_FETCHES,
            share=MAX_FETCHES_OF_SERVER,
            max_waiting=MAX_WAITING_OF_SERVER,
            max_waiting_in_all=MAX_WAITING,
        )
        self._stall_check = PeriodicTask(
            clock, STALL_CHECK_SECONDS, self._end_stalled, name="the check of remote media"
        )

    def start(self) -> None:
        """Watch fetches."""
        self._stall_check.start()

    async def stop(self) -> None:
        """End fetches in progress."""
        await self._stall_check.stop()
        for fetch in list(self._fetches.values()):
            if fetch.running is not None:
                fetch.running.cancel()

    def fetch(self, name: MediaId, timeout_ms: int) -> ArrivingFile:
        """The file while it arrives. Raises the error of a fetch that failed lately."""
        fetch = self._fetches.get(name)
        if fetch is None:
            failed = self._failed.get(name)
            if failed is not None and failed.until > self._clock.seconds():
                raise failed.error.fresh()
            fetch = self._fetches[name] = _Fetch(
                ArrivingFile(self._store, self._settings.max_remote_file)
            )
            timeout_ms = min(max(timeout_ms, 0), MAX_WAIT_MS)
            running = Deferred.fromCoroutine(self._fetch(name, fetch, timeout_ms))
            running.addErrback(lambda failure: self._end_failed(name, fetch, failure))
            fetch.running = running
        return fetch.file

    async def _fetch(self, name: MediaId, fetch: _Fetch, timeout_ms: int) -> None:
        file = fetch.file
        try:
            async with self._slots.slot(name.server_name):
                fetch.has_slot, fetch.stalls = True, 0
                incoming = await self._store.begin()
                file.receive_into(incoming)
                try:
                    await self._remote.fetch(name, file, timeout_ms)
                    fetch.has_arrived = True
                    sha256 = await incoming.close()
                    new = NewMedia(
                        name,
                        None,
                        now_ms(self._clock),
                        sha256,
                        incoming.size,
                        file.content_type,
                        file.filename,
                        self._settings.unauthenticated_access,
                    )
                    await self._store.keep(incoming, sha256, lambda: self._db.run(add_media, new))
                finally:
                    await incoming.discard()
            file.complete(await self._find_stored(name))
        finally:
            self._fetches.pop(name, None)

    async def _find_stored(self, name: MediaId) -> ServedFile:
        known = await self._db.run(find_media, name)
        if known is None or known.is_quarantined or known.sha256 is None or known.size is None:
            raise NotFound("There is no such media")
        return ServedFile(
            known.sha256,
            known.size,
            known.content_type,
            known.filename,
        )

    def _end_failed(self, name: MediaId, fetch: _Fetch, failure: Failure) -> None:
        error: Any = failure.value
        is_cancelled = isinstance(error, CancelledError)
        if isinstance(error, QueueFull) or (is_cancelled and not fetch.has_slot):
            error = LimitExceeded(RETRY_AFTER_MS, "Too many media are being fetched")
        elif is_cancelled:
            error = RemoteServerFailed(f"{name.server_name} is too slow")
        elif not isinstance(error, MatrixError):
            log.failure("could not fetch {name}", failure, name=str(name))
            error = RemoteServerFailed("The media could not be fetched")
        # What this server lacks for the moment says nothing of the file.
        if not isinstance(error, LimitExceeded | Unavailable):
            seconds = NOT_YET_SECONDS if isinstance(error, NotYetUploaded) else FAILURE_SECONDS
            self._failed.put(name, _FailedFetch(error.fresh(), self._clock.seconds() + seconds))
        fetch.file.fail(error)

    def _end_stalled(self) -> None:
        for fetch in list(self._fetches.values()):
            if fetch.has_arrived or fetch.file.progress != fetch.progress:
                fetch.progress, fetch.stalls = fetch.file.progress, 0
                continue
            fetch.stalls += 1
            # Before the first byte the other server may wait for the upload.
            patience = MAX_STALLS if fetch.progress else MAX_STALLS + MAX_WAIT_MS // 10_000
            if fetch.stalls > patience and fetch.running is not None:
                fetch.running.cancel()
