"""The barest file transfer of Twisted, for comparison.

Its command is `python -m benchmarks.media.bare_files PORT FOLDER`.

No HTTP, no database, no hash. A line `PUT name size` is followed by the bytes, which are written to
a file and synced to the disk, and answered by a line; `GET name` is answered by the bytes.
"""

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import FileSender, LineReceiver


class FileTransfer(LineReceiver):
    """One connection, which transfers files one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Any = None
        self._left = 0

    def lineReceived(self, line: bytes) -> None:
        words = line.decode().split()
        path = self._folder / words[1]
        if words[0] == "PUT":
            self._file, self._left = path.open("wb"), int(words[2])
            self.setRawMode()
        else:
            file = path.open("rb")
            sending = FileSender().beginFileTransfer(file, self.transport)
            sending.addBoth(lambda _: file.close())

    def rawDataReceived(self, data: bytes) -> None:
        self._file.write(data[: self._left])
        self._left -= len(data)
        if self._left <= 0:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self.sendLine(b"stored")
            self.setLineMode()


class TransferFactory(Factory):
    """Makes the connections."""

    noisy = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def buildProtocol(self, addr: object) -> FileTransfer:
        return FileTransfer(self._folder)


def main() -> None:
    """Serve until killed."""
    task.react(_serve)


async def _serve(reactor: Any) -> None:
    endpoint = TCP4ServerEndpoint(reactor, int(sys.argv[1]), interface="127.0.0.1")
    await endpoint.listen(TransferFactory(Path(sys.argv[2])))
    await Deferred()


if __name__ == "__main__":
    main()
