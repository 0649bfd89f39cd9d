"""The staging folder: files that are being received, before they are stored."""

import os
import secrets
from pathlib import Path

from homeserver.media.files.disk import Disk
from homeserver.media.files.incoming_file import IncomingFile

INCOMING = "incoming"


class Staging:
    """The folder `incoming` of one media folder."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.disk = disk
        self._folder = folder / INCOMING

    async def prepare(self) -> None:
        """Make the folder, and delete files that a former run did not complete."""
        await self.disk.run(self._prepare)

    async def begin(self, announced: int | None = None) -> IncomingFile:
        """A new file, of `announced` bytes if that is known. Raises `NoSpace`."""
        await self.disk.run(self.disk.check_space, self._folder, announced or 0)
        return IncomingFile(self.disk, self._folder / secrets.token_hex(16))

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in os.scandir(self._folder):
            if entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
