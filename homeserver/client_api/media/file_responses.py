"""Responses with files of the content repository.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from homeserver.media.downloads import FoundFile
from homeserver.media.files.content_store import ContentStore
from homeserver.media.remote.arriving_file import ArrivingFile
from homeserver.media.served_file import (
    SECURITY_HEADERS,
    Conditions,
    file_headers,
    serve_file,
)
from homeserver.protocol.media.content_disposition import normal_filename
from homeserver.web.request import Request
from homeserver.web.routes import Response, Streamed


class FileResponses:
    """Makes the responses; they read files from `store`."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def respond(
        self,
        request: Request,
        file: FoundFile,
        filename: str | None = None,
        *,
        is_public: bool = False,
    ) -> Streamed | Response:
        """The response with a file, under another name if one is given.

        A file that is still arriving is sent from its beginning, whatever range was requested.
        Raises `RangeNotSatisfiable`.
        """
        name = file.filename if filename is None else normal_filename(filename)
        if isinstance(file, ArrivingFile):
            headers = {**file_headers(file.content_type, name), **SECURITY_HEADERS}
            return Streamed(file.parts(), headers=headers, size=file.size)
        conditions = Conditions(
            request.header(b"Range"), request.header(b"If-Range"), request.header(b"If-None-Match")
        )
        return serve_file(file.named(name), self._store, conditions, is_public=is_public)
