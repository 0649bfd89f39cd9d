"""The port to other servers for their files."""

from typing import Protocol

from homeserver.protocol.media.media_ids import MediaId


class FileSink(Protocol):
    """The receiver of one file."""

    def begin(self, content_type: str | None, filename: str | None, size: int | None) -> None:
        """The file begins; `size` is that of the file in bytes, if it is known.

        Raises `RemoteTooLarge`.
        """

    async def write(self, parts: list[bytes]) -> None:
        """Some bytes of it have arrived. Raises `RemoteTooLarge` or `NoSpace`."""


class RemoteMediaPort(Protocol):
    """Requests to other servers for their files."""

    async def fetch(self, name: MediaId, sink: FileSink, timeout_ms: int) -> None:
        """Have a file sent to a sink.

        `timeout_ms` is how long the other server may wait for its upload. Raises `MatrixError`;
        then the sink has none or a part of the file.
        """
