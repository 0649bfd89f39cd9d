"""Uploads: files of local users, in one step or to an address that was created before.

The body goes to disk while it arrives, and its hash is computed on the way. No database connection
is held meanwhile. Whether the user may upload at all, and whether the announced size fits, is
checked before the first byte is read.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.sections.media import MediaSettings
from homeserver.media.files.content_store import ContentStore
from homeserver.media.upload_quotas import UploadQuotas
from homeserver.media.upload_waits import UploadWaits
from homeserver.protocol.errors import (
    CannotOverwriteMedia,
    Forbidden,
    InvalidParam,
    LimitExceeded,
    NotFound,
)
from homeserver.protocol.media.content_disposition import normal_filename
from homeserver.protocol.media.content_types import normal_content_type
from homeserver.protocol.media.media_ids import MediaId, parse_media_id
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import (
    NewMedia,
    add_media,
    complete_media,
    find_media,
    reserve_media_id,
)

HOUR_MS = 3_600_000
RETRY_AFTER_MS = 60_000


class Body(Protocol):
    """A body that is read while it arrives: `ByteStream`."""

    @property
    def announced(self) -> int | None:
        """Its size in bytes, if that is known in advance."""

    async def read(self, at_least: int = 1) -> list[bytes]:
        """The next parts, of `at_least` so many bytes; none at the end."""


class CreatedMedia(msgspec.Struct, frozen=True):
    """An address to which its creator can upload until `expires_at` (ms)."""

    name: MediaId
    expires_at: int


Record = Callable[[NewMedia], Awaitable[None]]


class Uploads:
    """The uploads of local users."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        server_name: str,
        settings: MediaSettings,
        store: ContentStore,
        quotas: UploadQuotas,
        waits: UploadWaits,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._settings = settings
        self._store = store
        self._quotas = quotas
        self._waits = waits
        self._reserving: KeyedLocks[str] = KeyedLocks()
        self._completing: set[MediaId] = set()

    async def upload(
        self, caller: Requester, body: Body, content_type: str | None, filename: str | None
    ) -> MediaId:
        """Store a file under a new address.

        Raises `Forbidden`, `LimitExceeded`, `TooLarge` or `Unavailable`.
        """
        check_not_suspended(caller)
        name = self._new_name()
        await self._receive(caller, name, body, content_type, filename, self._add)
        return name

    async def reserve(self, caller: Requester) -> CreatedMedia:
        """Create an address without a file. Raises `LimitExceeded` if the caller has too many."""
        check_not_suspended(caller)
        name, now = self._new_name(), now_ms(self._clock)
        expires_at = now + self._settings.pending_hours * HOUR_MS
        most = self._settings.pending_uploads
        user_id = caller.user_id
        async with self._reserving.hold(user_id):
            was_added = await self._db.run(reserve_media_id, name, user_id, now, expires_at, most)
        if not was_added:
            raise LimitExceeded(
                RETRY_AFTER_MS, f"You have {most} media without content; upload them first"
            )
        return CreatedMedia(name, expires_at)

    async def upload_to(
        self,
        caller: Requester,
        server_name: str,
        media_id: str,
        body: Body,
        content_type: str | None,
        filename: str | None,
    ) -> None:
        """Store the file of an address that the caller has created.

        Raises `NotFound`, `CannotOverwriteMedia`, and what `upload` raises.
        """
        check_not_suspended(caller)
        name = parse_media_id(server_name, media_id)
        await self._check_reserved(caller, name)
        # Two uploads to one address would be received only for one to be refused at its end.
        if name in self._completing:
            raise CannotOverwriteMedia("An upload to this address is in progress")
        self._completing.add(name)
        try:
            await self._receive(caller, name, body, content_type, filename, self._complete)
        finally:
            self._completing.discard(name)
        self._waits.uploaded(name)

    async def _check_reserved(self, caller: Requester, name: MediaId) -> None:
        known = None
        if name.server_name == self._server_name:
            known = await self._db.run(find_media, name)
        if known is None:
            raise NotFound("There is no such media")
        if known.uploader != caller.user_id:
            raise Forbidden("Another user has created this media")
        if known.sha256 is not None:
            raise CannotOverwriteMedia("The media has been uploaded already")
        if known.expires_at is None or known.expires_at <= now_ms(self._clock):
            raise NotFound("The time for this upload is over")

    async def _receive(
        self,
        caller: Requester,
        name: MediaId,
        body: Body,
        content_type: str | None,
        filename: str | None,
        record: Record,
    ) -> None:
        if filename is not None and "\0" in filename:
            raise InvalidParam("A filename may not contain NUL characters")
        async with self._quotas.upload(caller.user_id, body.announced) as upload:
            incoming = await self._store.begin(body.announced)
            try:
                while parts := await body.read(self._quotas.batch_size):
                    upload.add(sum(map(len, parts)))
                    await incoming.write(parts)
                sha256 = await incoming.close()
                new = NewMedia(
                    name,
                    caller.user_id,
                    now_ms(self._clock),
                    sha256,
                    incoming.size,
                    normal_content_type(content_type),
                    normal_filename(filename),
                    self._settings.unauthenticated_access,
                )
                await self._store.keep(incoming, sha256, lambda: record(new))
            finally:
                await incoming.discard()
            upload.stored()

    async def _add(self, new: NewMedia) -> None:
        await self._db.run(add_media, new)

    async def _complete(self, new: NewMedia) -> None:
        if not await self._db.run(complete_media, new):
            raise NotFound("The time for this upload is over")

    def _new_name(self) -> MediaId:
        return MediaId(self._server_name, secrets.token_urlsafe(18))
