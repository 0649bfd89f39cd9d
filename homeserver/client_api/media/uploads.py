"""Uploads over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.byte_stream import ByteStream
from homeserver.media.uploads import Uploads
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

MEDIA = "/_matrix/media"
UPLOAD = f"{MEDIA}/v3/upload"
CONFIG = "/_matrix/client/v1/media/config"


class UploadQuery(msgspec.Struct):
    filename: str | None = None


class MediaUploadsApi:
    def __init__(self, uploads: Uploads, max_upload: int) -> None:
        self._uploads = uploads
        self._max_upload = max_upload

    def routes(self) -> list[Route]:
        size = self._max_upload
        put = f"{UPLOAD}/{{server_name}}/{{media_id}}"
        return [
            Route("POST", UPLOAD, self.upload_content, limit="upload", max_body=size),
            Route("PUT", put, self.upload_content_to_mxc, limit="upload", max_body=size),
            Route("POST", f"{MEDIA}/v1/create", self.create_content, limit="upload"),
            Route("GET", CONFIG, self.get_config_authed, Auth.GUEST, limit="lookup"),
            Route("GET", f"{MEDIA}/v3/config", self.get_config, Auth.GUEST, limit="lookup"),
        ]

    async def upload_content(
        self, caller: Requester, body: ByteStream, query: UploadQuery, request: Request
    ) -> dict[str, str]:
        """Upload a file."""
        content_type = request.header(b"Content-Type")
        name = await self._uploads.upload(caller, body, content_type, query.filename)
        return {"content_uri": str(name)}

    async def upload_content_to_mxc(
        self,
        caller: Requester,
        server_name: str,
        media_id: str,
        body: ByteStream,
        query: UploadQuery,
        request: Request,
    ) -> None:
        """Upload a file to an address that the caller has created."""
        content_type = request.header(b"Content-Type")
        await self._uploads.upload_to(
            caller, server_name, media_id, body, content_type, query.filename
        )

    async def create_content(self, caller: Requester) -> dict[str, str | int]:
        """Create an address, to upload a file to it later."""
        created = await self._uploads.reserve(caller)
        return {"content_uri": str(created.name), "unused_expires_at": created.expires_at}

    def get_config_authed(self, caller: Requester) -> dict[str, int]:
        """The limits of this repository."""
        return self.get_config(caller)

    def get_config(self, caller: Requester) -> dict[str, int]:
        """The limits of this repository, at the deprecated endpoint."""
        return {"m.upload.size": self._max_upload}
