"""Requests for files of other servers.

The file is the second part of the response, or at a URL that this part names. Servers from before
Matrix 1.11 have only the deprecated endpoint, which needs no signature.

Spec: https://spec.matrix.org/v1.19/server-server-api/#content-repository
"""

from twisted.web.iweb import IResponse

from federation.paths import V1, path_of
from federation.remote.client_errors import for_users
from federation.transport.client import FederationClient
from federation.transport.errors import (
    FederationDenied,
    FederationError,
    InvalidResponse,
    RemoteError,
)
from homeserver.media.remote.remote_media_port import FileSink
from homeserver.outbound.http_client import OutboundClient, OutboundError
from homeserver.outbound.streamed_body import streamed_body
from homeserver.protocol.errors import (
    MatrixError,
    NotFound,
    NotYetUploaded,
    RemoteServerFailed,
    RemoteTooLarge,
)
from homeserver.protocol.media.content_disposition import filename_in
from homeserver.protocol.media.media_ids import MediaId
from homeserver.protocol.media.multipart import (
    Head,
    MultipartError,
    MultipartReader,
    boundary_in,
)

OLD_DOWNLOAD = "/_matrix/media/v3/download"
TIMEOUT_SECONDS = 600.0  # of the whole transfer
MAX_METADATA = 65_536  # bytes of the first part


class RemoteMedia:
    """Fetches files; `web` follows redirects to other web servers."""

    def __init__(self, client: FederationClient, web: OutboundClient) -> None:
        self._client = client
        self._web = web

    async def fetch(self, name: MediaId, sink: FileSink, timeout_ms: int) -> None:
        """Have a file sent to a sink. Raises `MatrixError`."""
        try:
            await self._fetch(name, sink, timeout_ms)
        except FederationError as error:
            raise _error_for(error) from error
        except OutboundError as error:
            raise RemoteServerFailed(f"{name.server_name} sent no whole file") from error

    async def _fetch(self, name: MediaId, sink: FileSink, timeout_ms: int) -> None:
        path = path_of(f"{V1}/media/download", name.media_id)
        query = {"timeout_ms": str(timeout_ms)}
        try:
            location = await self._client.stream(
                name.server_name,
                path,
                query,
                lambda response: _receive_parts(name.server_name, response, sink),
                timeout=TIMEOUT_SECONDS,
            )
        except RemoteError as error:
            if error.status != 404 or error.errcode not in ("", "M_UNRECOGNIZED"):
                raise
            await self._fetch_from_old_endpoint(name, sink, query)
            return
        if location is not None:
            await self._web.stream(
                location,
                lambda response: _receive_redirected(name, response, sink),
                timeout=TIMEOUT_SECONDS,
                only_https=True,
            )

    async def _fetch_from_old_endpoint(
        self, name: MediaId, sink: FileSink, query: dict[str, str]
    ) -> None:
        await self._client.stream(
            name.server_name,
            path_of(OLD_DOWNLOAD, name.server_name, name.media_id),
            {**query, "allow_remote": "false"},
            lambda response: _receive_file(response, sink),
            timeout=TIMEOUT_SECONDS,
            signed=False,
        )


async def _receive_redirected(name: MediaId, response: IResponse, sink: FileSink) -> None:
    if response.code != 200:
        raise RemoteServerFailed(f"{name.server_name} named a URL that does not have the file")
    await _receive_file(response, sink)


async def _receive_file(response: IResponse, sink: FileSink) -> None:
    headers = response.headers
    content_type = headers.getRawHeaders("Content-Type", [None])[0]
    disposition = headers.getRawHeaders("Content-Disposition", [None])[0]
    with streamed_body(response) as body:
        sink.begin(content_type, filename_in(disposition), body.announced)
        while parts := await body.read():
            await sink.write(parts)


async def _receive_parts(server: str, response: IResponse, sink: FileSink) -> str | None:
    """Receive the two parts; the URL of the file, if they do not have it themselves."""
    try:
        content_type = response.headers.getRawHeaders("Content-Type", [""])[0]
        reader = MultipartReader(boundary_in(content_type))
        with streamed_body(response, marks_its_end=True) as body:
            parts = _Parts(reader, sink)
            while pieces := await body.read():
                await parts.feed(pieces)
            reader.check_complete()
    except MultipartError as error:
        raise InvalidResponse(server, str(error)) from error
    return parts.location


class _Parts:
    """Passes the second part of a body to a sink, unless it names the `location` of the file."""

    def __init__(self, reader: MultipartReader, sink: FileSink) -> None:
        self.location: str | None = None
        self._reader = reader
        self._sink = sink
        self._begun = 0
        self._metadata = 0

    async def feed(self, pieces: list[bytes]) -> None:
        file: list[bytes] = []
        for piece in pieces:
            for item in self._reader.feed(piece):
                if not isinstance(item, bytes):
                    self._begin(item)
                elif self._begun < 2:
                    self._count_metadata(item)
                elif self.location is None:
                    file.append(item)
        if file:
            await self._sink.write(file)

    def _begin(self, head: Head) -> None:
        self._begun += 1
        if self._begun < 2:
            return
        self.location = head.get("location")
        if self.location is None:
            disposition = head.get("content-disposition")
            self._sink.begin(head.get("content-type"), filename_in(disposition), None)

    def _count_metadata(self, item: bytes) -> None:
        self._metadata += len(item)
        if self._metadata > MAX_METADATA:
            raise MultipartError("the metadata are too large")


def _error_for(error: FederationError) -> MatrixError:
    if isinstance(error, FederationDenied):
        return NotFound("There is no such media")
    if not isinstance(error, RemoteError):
        return for_users(error)
    if error.errcode == "M_NOT_YET_UPLOADED":
        return NotYetUploaded("The media has not been uploaded yet")
    if error.errcode == "M_TOO_LARGE":
        return RemoteTooLarge("The other server cannot serve media of this size")
    if error.status == 429:
        return error.limit_exceeded()
    if error.status in (403, 404):
        return NotFound("The other server has no such media")
    return RemoteServerFailed(f"{error.server} refused: {error.error}"[:500])
