"""Quotas: how many files, of how many bytes, one user may store.

What a user is uploading at the moment counts like what is stored, from the first byte on, so that
concurrent uploads cannot exceed the quota together.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repo-security-considerations
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.sections.media import MediaSettings
from homeserver.protocol.errors import Forbidden, LimitExceeded
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import MediaUsage, usage_of

MAX_CONCURRENT = 20  # uploads of one user
MAX_CONCURRENT_IN_ALL = 1_000
RETRY_AFTER_MS = 5_000
MEMORY = 25_165_824  # bytes for the buffers of all uploads, of which each has two
MIN_BATCH, MAX_BATCH = 65_536, 1_048_576  # bytes


class UploadQuotas:
    """The quotas of all users. Uploads in progress, `running` of them, are within `upload`."""

    def __init__(self, db: Database, settings: MediaSettings) -> None:
        self._db = db
        self._max_bytes = settings.user_quota
        self._max_files = settings.user_files
        self._users: dict[str, _User] = {}  # those who are uploading
        self.running = 0
        self._loading: KeyedLocks[str] = KeyedLocks()

    @asynccontextmanager
    async def upload(self, user_id: str, announced: int | None) -> AsyncIterator["Upload"]:
        """An upload of a user; `announced` are its bytes, if that is known.

        Raises `Forbidden` if the quota does not allow it, and `LimitExceeded` if too many uploads
        are in progress.
        """
        user = await self._begin(user_id)
        upload = Upload(self, user)
        try:
            upload.reserve(announced or 0)
            yield upload
        finally:
            user.running -= 1
            self.running -= 1
            user.uploading -= upload.reserved
            if not user.running:
                self._users.pop(user_id, None)

    @property
    def batch_size(self) -> int:
        """Bytes that one upload should read at a time, so that all have a bounded memory together.

        Each write costs a thread; larger ones are cheaper.
        """
        return min(max(MEMORY // (2 * max(self.running, 1)), MIN_BATCH), MAX_BATCH)

    def check(self, user: "_User", more: int) -> None:
        """Raise `Forbidden` if a user may not store `more` bytes beyond those in progress."""
        if self._max_files is not None and user.files + user.running > self._max_files:
            raise Forbidden("You have reached the number of files that you may store")
        stored = user.bytes + user.uploading
        if self._max_bytes is not None and stored + more > self._max_bytes:
            raise Forbidden("You have reached the size of files that you may store")

    async def _begin(self, user_id: str) -> "_User":
        async with self._loading.hold(user_id):
            user = self._users.get(user_id)
            if user is None:
                user = self._users[user_id] = _User(await self._db.run(usage_of, user_id))
            if user.running >= MAX_CONCURRENT or self.running >= MAX_CONCURRENT_IN_ALL:
                if not user.running:
                    del self._users[user_id]
                raise LimitExceeded(RETRY_AFTER_MS, "Too many uploads are in progress")
            user.running += 1
            self.running += 1
            return user


class _User:
    """What a user who is uploading has stored, and is about to store."""

    __slots__ = ("bytes", "files", "running", "uploading")

    def __init__(self, usage: MediaUsage) -> None:
        self.files = usage.files
        self.bytes = usage.bytes
        self.running = 0
        self.uploading = 0


class Upload:
    """One upload in progress; `reserved` bytes of the quota are set aside for it."""

    def __init__(self, quotas: UploadQuotas, user: _User) -> None:
        self.reserved = 0
        self._size = 0
        self._quotas = quotas
        self._user = user

    def reserve(self, size: int) -> None:
        """Set bytes aside. Raises `Forbidden` if the quota does not allow it."""
        self._quotas.check(self._user, size)
        self.reserved += size
        self._user.uploading += size

    def add(self, size: int) -> None:
        """Count bytes that have arrived. Raises `Forbidden` if they are too many."""
        self._size += size
        if self._size > self.reserved:
            self.reserve(self._size - self.reserved)

    def stored(self) -> None:
        """The file is stored: from now on it counts as such."""
        self._user.files += 1
        self._user.bytes += self._size
