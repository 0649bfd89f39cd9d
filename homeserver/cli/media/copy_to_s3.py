"""`homeserver media copy-to-s3`: copies the media folder to the bucket, before it is used.

The server may be running, with the local storage. Nothing is deleted.
"""

import sys
from pathlib import Path
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.errors import CommandError
from homeserver.cli.reactor import run_in_reactor
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.config.settings import Settings
from homeserver.media.files.content_store import media_folder
from homeserver.media.files.disk import Disk
from homeserver.media.files.s3.bucket import Bucket, BucketUnavailable
from homeserver.media.files.s3.folder_copy import CopyCount, FolderCopy
from homeserver.media.files.s3.s3_storage import S3Storage
from homeserver.media.files.staging import Staging

THREADS = 4
MEBIBYTE = 1_048_576


def copy_to_s3(config: Path | None) -> int:
    """Copy all files; returns the exit status, which is 1 if some are damaged."""
    settings = load_installed(config)
    if settings.media.s3.bucket is None:
        raise CommandError("media.s3.bucket is not set: name the bucket, see docs/media.md")
    count = run_in_reactor(lambda reactor: _copy(reactor, settings))
    print(
        f"Files copied: {count.copied:,}, {count.copied_bytes / MEBIBYTE:,.1f} MiB;"
        f" in the bucket before: {count.present:,}"
    )
    return 1 if count.damaged else 0


async def _copy(reactor: Any, settings: Settings) -> CopyCount:
    bucket = Bucket(reactor, settings.media.s3)
    disk = Disk(ThreadPool(reactor, "media files", size=THREADS, max_waiting=100), min_free_space=0)
    folder = media_folder(settings)
    try:
        await S3Storage(bucket, Staging(folder, disk), settings.server_name).claim()
        return await FolderCopy(folder, disk, bucket, _report).run()
    except BucketUnavailable as error:
        raise CommandError(f"{error.reason}. Run the command again: it continues") from None
    except OSError as error:
        raise CommandError(f"cannot read {error.filename}: {error.strerror}") from None


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
