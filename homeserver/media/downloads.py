"""Downloads: from an `mxc://` URI to the file that is served.

The deprecated endpoints without authentication are frozen: they serve only files that were stored
while `media.unauthenticated_access` was true, and cause no request to another server otherwise.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour
"""

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.sections.media import MediaSettings
from homeserver.media.remote.arriving_file import ArrivingFile
from homeserver.media.remote.remote_files import RemoteFiles
from homeserver.media.served_file import ServedFile
from homeserver.media.upload_waits import UploadWaits
from homeserver.protocol.errors import NotFound
from homeserver.protocol.media.media_ids import MediaId, parse_media_id
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import Media, find_media, mark_used
from homeserver.web.rate_limits import RateLimits

DEFAULT_WAIT_MS = 20_000
USED_GRAIN_MS = 3_600_000  # a use is recorded if the recorded one is older

FoundFile = ServedFile | ArrivingFile


class Downloads:
    """The files that can be downloaded."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        server_name: str,
        settings: MediaSettings,
        waits: UploadWaits,
        remote: RemoteFiles,
        rate_limits: RateLimits,
    ) -> None:
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._is_open = settings.unauthenticated_access
        self._waits = waits
        self._remote = remote
        self._rate_limits = rate_limits

    async def find(
        self, caller: Requester, server_name: str, media_id: str, timeout_ms: int
    ) -> FoundFile:
        """The file of an address, for a user.

        Raises `NotFound`, `NotYetUploaded`, or why another server did not send it.
        """
        name = parse_media_id(server_name, media_id)
        if name.server_name == self._server_name:
            return await self.find_local(media_id, timeout_ms)
        known = await self._db.run(find_media, name)
        return await self._find_remote(name, known, caller, timeout_ms)

    async def find_public(
        self,
        address: str,
        server_name: str,
        media_id: str,
        timeout_ms: int,
        *,
        may_fetch: bool,
    ) -> FoundFile:
        """The file of an address, for anyone at an IP address.

        Files of other servers are fetched only with `may_fetch`, and unless the endpoints are
        frozen. Raises what `find` raises.
        """
        name = parse_media_id(server_name, media_id)
        known = await self._db.run(find_media, name)
        if known is not None and known.is_public:
            return await self._served(name, known)
        if not self._is_open:
            raise NotFound("There is no such media, or it needs authentication")
        if name.server_name == self._server_name:
            # An address that is public once it is uploaded.
            if known is None or known.sha256 is not None:
                raise NotFound("There is no such media, or it needs authentication")
            return await self.find_local(media_id, timeout_ms)
        if known is not None or not may_fetch:
            raise NotFound("There is no such media, or it needs authentication")
        return await self._find_remote(name, None, address, timeout_ms)

    async def find_local(self, media_id: str, timeout_ms: int) -> ServedFile:
        """A file of this server, whether a user or another server requests it.

        Raises `NotFound` or `NotYetUploaded`.
        """
        name = parse_media_id(self._server_name, media_id)
        known = await self._db.run(find_media, name)
        if known is not None and known.sha256 is None and not known.is_quarantined:
            if known.expires_at is not None and known.expires_at <= now_ms(self._clock):
                raise NotFound("There is no such media")
            await self._waits.wait(name, timeout_ms)
            known = await self._db.run(find_media, name)
        if known is None:
            raise NotFound("There is no such media")
        return await self._served(name, known)

    async def _find_remote(
        self, name: MediaId, known: Media | None, party: Requester | str, timeout_ms: int
    ) -> FoundFile:
        if known is not None and (known.sha256 is not None or known.is_quarantined):
            return await self._served(name, known)
        self._rate_limits.check("remote_media", party)
        file = self._remote.fetch(name, timeout_ms)
        await file.readable()
        return file.stored or file

    async def _served(self, name: MediaId, known: Media) -> ServedFile:
        if known.is_quarantined or known.sha256 is None or known.size is None:
            raise NotFound("There is no such media")
        now = now_ms(self._clock)
        if known.used_at < now - USED_GRAIN_MS:
            await self._db.run(mark_used, name, now)
        return ServedFile(
            known.sha256,
            known.size,
            known.content_type,
            known.filename,
        )
