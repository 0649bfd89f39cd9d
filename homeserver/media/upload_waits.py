"""Waits for uploads: downloads of files whose address exists, but not their content.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
"""

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.protocol.errors import NotYetUploaded
from homeserver.protocol.media.media_ids import MediaId

MAX_WAIT_MS = 60_000
MAX_WAITING = 10_000  # downloads in all


class UploadWaits:
    """The downloads that wait, by the file for which they do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[MediaId, set[Deferred[None]]] = {}
        self._count = 0

    async def wait(self, name: MediaId, timeout_ms: int) -> None:
        """Wait until a file is uploaded. Raises `NotYetUploaded` if that takes too long."""
        seconds = min(max(timeout_ms, 0), MAX_WAIT_MS) / 1000
        if not seconds or self._count >= MAX_WAITING:
            raise NotYetUploaded("The media has not been uploaded yet")
        uploaded: Deferred[None] = Deferred()
        self._waiting.setdefault(name, set()).add(uploaded)
        self._count += 1
        uploaded.addTimeout(seconds, self._clock, _timed_out)  # type: ignore[arg-type]
        try:
            await uploaded
        finally:
            self._count -= 1
            waiting = self._waiting.get(name)
            if waiting is not None:
                waiting.discard(uploaded)
                if not waiting:
                    del self._waiting[name]

    def uploaded(self, name: MediaId) -> None:
        """A file has been uploaded."""
        for waiting in self._waiting.pop(name, set()):
            if not waiting.called:
                waiting.callback(None)


def _timed_out(_: object, __: float) -> None:
    raise NotYetUploaded("The media has not been uploaded yet")
