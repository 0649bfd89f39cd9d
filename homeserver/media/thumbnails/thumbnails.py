"""Thumbnails of stored pictures: found, or made once and stored.

A picture has at most one thumbnail of each configured size, still and animated. Requests for the
same one that come while it is being made wait for it; a picture that cannot be decoded is not tried
again for a while.

Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.media.files.content_store import ContentStore
from homeserver.media.served_file import ServedFile
from homeserver.media.worker_processes import WorkerFailed, WorkerProcesses
from homeserver.protocol.errors import (
    CannotMakeThumbnail,
    LimitExceeded,
    MatrixError,
    NotFound,
    TooLarge,
    Unavailable,
)
from homeserver.protocol.media.thumbnail_sizes import UNBOUNDED, Method, ThumbnailSize, choose_size
from homeserver.storage.database.database import Database
from homeserver.storage.media.thumbnails import Thumbnail, add_thumbnail, find_thumbnail

PROGRAM = Path(__file__).resolve().with_name("worker.py")  # not imported: it loads the decoders
MEMORY = 805_306_368  # bytes of address space of one process
CPU_SECONDS = 15
FAILURE_SECONDS = 3_600.0
FAILURES_CACHED = 10_000
MAX_WAITING = 200  # thumbnails for one party
MAX_WAITING_IN_ALL = 2_000
RETRY_AFTER_MS = 5_000

Pixels = Annotated[int, msgspec.Meta(ge=1, le=UNBOUNDED)]
"""A width or height that can be requested."""

log = Logger()


class Wish(msgspec.Struct, frozen=True):
    """What a client requested."""

    width: int
    height: int
    method: Method
    is_animated: bool


class _Key(msgspec.Struct, frozen=True):
    source: bytes
    size: ThumbnailSize
    is_animated: bool


class _Failed(msgspec.Struct, frozen=True):
    error: str
    until: float


def thumbnail_workers(reactor: Any, *, size: int, max_pixels: int) -> WorkerProcesses:
    """The processes that make thumbnails; `max_pixels` are those of a decoded picture."""
    limits = [str(max_pixels), str(MEMORY), str(CPU_SECONDS)]
    return WorkerProcesses(reactor, "thumbnails", PROGRAM, limits, size=size)


class Thumbnails:
    """The thumbnails of all stored pictures, in these `sizes`; `processes` make them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        store: ContentStore,
        workers: WorkerProcesses,
        sizes: Sequence[ThumbnailSize],
        processes: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._store = store
        self._workers = workers
        self._sizes = sizes
        self._making: SingleFlight[_Key, Thumbnail] = SingleFlight()
        self._failed: LruCache[_Key, _Failed] = LruCache("failed_thumbnails", FAILURES_CACHED)
        self._slots = FairSlots(
            processes,
            share=processes,
            max_waiting=MAX_WAITING,
            max_waiting_in_all=MAX_WAITING_IN_ALL,
        )

    async def find(self, picture: ServedFile, wish: Wish, party: str) -> ServedFile:
        """The thumbnail for a wish, made for `party` if need be.

        Raises `CannotMakeThumbnail`, `TooLarge` or `LimitExceeded`.
        """
        size = choose_size(self._sizes, ThumbnailSize(wish.width, wish.height, wish.method))
        key = _Key(picture.sha256, size, wish.is_animated)
        thumbnail = await self._db.run(
            find_thumbnail,
            key.source,
            size.width,
            size.height,
            size.method,
            is_animated=key.is_animated,
        )
        if thumbnail is None:
            self._check_failed(key)
            thumbnail = await self._making.join(key, lambda: self._make(key, picture, party))
        kind = thumbnail.content_type.rpartition("/")[2]
        return replace(
            picture,
            sha256=thumbnail.sha256,
            size=thumbnail.size,
            content_type=thumbnail.content_type,
            filename=f"thumbnail.{kind}",
        )

    async def _make(self, key: _Key, picture: ServedFile, party: str) -> Thumbnail:
        incoming = await self._store.begin()
        try:
            async with (
                self._slots.slot(party),
                self._store.local_copy(picture.sha256, picture.size) as source,
            ):
                result = await self._workers.run(
                    {
                        "source": str(source),
                        "target": str(incoming.path),
                        "width": key.size.width,
                        "height": key.size.height,
                        "method": key.size.method,
                        "is_animated": key.is_animated,
                    }
                )
            if "same" in result:
                same = Thumbnail(picture.sha256, picture.size, result["same"])
                await self._add(key, same)
                return same
            if "made" not in result:
                raise self._error_of(key, result.get("error", ""))
            sha256 = await incoming.close_written()
            thumbnail = Thumbnail(sha256, incoming.size, result["made"])
            await self._store.keep(incoming, sha256, lambda: self._add(key, thumbnail))
            return thumbnail
        except QueueFull:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many thumbnails are being made") from None
        except WorkerFailed as error:
            log.warn("no thumbnail of {sha256}: {error}", sha256=picture.sha256.hex(), error=error)
            raise self._fail(key, "too_large") from error
        finally:
            await incoming.discard()

    async def _add(self, key: _Key, thumbnail: Thumbnail) -> None:
        size = key.size
        await self._db.run(
            add_thumbnail,
            key.source,
            size.width,
            size.height,
            size.method,
            thumbnail,
            is_animated=key.is_animated,
        )

    def _error_of(self, key: _Key, error: str) -> MatrixError:
        # What this server lacks says nothing of the picture.
        if error == "lost":
            return NotFound("The server has lost this media")
        if error == "no_disk":
            return Unavailable("The server has no space for thumbnails at the moment")
        return self._fail(key, error)

    def _fail(self, key: _Key, error: str) -> MatrixError:
        self._failed.put(key, _Failed(error, self._clock.seconds() + FAILURE_SECONDS))
        return _error_for(error)

    def _check_failed(self, key: _Key) -> None:
        failed = self._failed.get(key)
        if failed is not None and failed.until > self._clock.seconds():
            raise _error_for(failed.error)


def _error_for(error: str) -> MatrixError:
    if error == "too_large":
        return TooLarge("The content is too large for a thumbnail")
    return CannotMakeThumbnail("The server cannot make a thumbnail of this content")
