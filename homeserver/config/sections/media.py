"""The settings of the content repository: where files are stored, and how many."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from homeserver.config.fields import Mistake, Section, doc
from homeserver.config.sections.s3 import S3Settings

MEBIBYTE = 1_048_576
GIBIBYTE = 1_073_741_824


class ThumbnailSizeSettings(Section, frozen=True, kw_only=True):
    """A size in which thumbnails are made."""

    width: Annotated[int, doc("Width.", unit="pixels", ge=1, le=4_096)]
    height: Annotated[int, doc("Height.", unit="pixels", ge=1, le=4_096)]
    method: Annotated[
        Literal["crop", "scale"],
        doc("`scale` keeps the aspect ratio of the picture, `crop` has that of width and height."),
    ]


def _size(width: int, height: int, method: Literal["crop", "scale"]) -> ThumbnailSizeSettings:
    return ThumbnailSizeSettings(width=width, height=height, method=method)


class MediaSettings(Section, frozen=True, kw_only=True):
    """Files that users upload, and those of other servers that they download."""

    storage: Annotated[
        Literal["local", "s3"],
        doc("Where files are stored: in `folder`, or in the bucket that `s3` describes."),
    ] = "local"
    s3: S3Settings = S3Settings()
    folder: Annotated[
        Path | None,
        doc(
            "Directory of the files; with `storage: s3`, of those that are being received. Nothing"
            " else may be in it, and back it up with the database.",
            default="`media` in `data_dir`",
            example="/srv/homeserver/media",
        ),
    ] = None
    max_upload: Annotated[
        int, doc("The largest file that a user may upload.", unit="bytes", ge=1)
    ] = 100 * MEBIBYTE
    user_quota: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        doc("The size of all files of one user; `null` for no limit.", unit="bytes"),
    ] = 10 * GIBIBYTE
    user_files: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        doc("The number of all files of one user; `null` for no limit.", unit="files"),
    ] = 100_000
    pending_uploads: Annotated[
        int,
        doc("Addresses that one user may create without uploading a file to them.", ge=1),
    ] = 50
    pending_hours: Annotated[
        int, doc("The time for uploading a file to such an address.", unit="hours", ge=1)
    ] = 24
    min_free_space: Annotated[
        int,
        doc(
            "Files are refused while the disk has less free space: a database on the same disk"
            " would stop.",
            unit="bytes",
            ge=0,
        ),
    ] = 512 * MEBIBYTE
    max_remote_file: Annotated[
        int, doc("The largest file of another server that users may download.", unit="bytes", ge=1)
    ] = 100 * MEBIBYTE
    remote_days: Annotated[
        int,
        doc(
            "A file of another server is deleted if it has not been used for this time; it is"
            " fetched again when it is needed.",
            unit="days",
            ge=1,
        ),
    ] = 30
    remote_cache_size: Annotated[
        int,
        doc(
            "The size of all cached files of other servers; beyond it the least recently used are"
            " deleted.",
            unit="bytes",
            ge=0,
        ),
    ] = 50 * GIBIBYTE
    thumbnail_sizes: Annotated[
        tuple[ThumbnailSizeSettings, ...],
        doc(
            "Sizes in which thumbnails are made; a client gets the smallest one that is not smaller"
            " than its wish, and the picture itself beyond all of them.",
            min_length=1,
        ),
    ] = (
        _size(32, 32, "crop"),
        _size(96, 96, "crop"),
        _size(256, 256, "crop"),
        _size(320, 240, "scale"),
        _size(640, 480, "scale"),
        _size(800, 600, "scale"),
    )
    thumbnail_processes: Annotated[
        int, doc("Processes that make thumbnails at a time.", unit="processes", ge=1)
    ] = 2
    max_thumbnail_pixels: Annotated[
        int,
        doc(
            "Pixels of the largest picture of which thumbnails are made. Each process needs up to"
            " twelve bytes for one; of JPEGs, which can be decoded at a fraction of their size,"
            " four times as many are allowed.",
            unit="pixels",
            ge=1_000_000,
            le=60_000_000,
        ),
    ] = 40_000_000
    unauthenticated_access: Annotated[
        bool,
        doc(
            "Let anyone who knows its address download a file at the deprecated endpoints, as"
            " clients and servers before Matrix 1.11 do. If it is set to false later, files that"
            " were stored before stay accessible there, and new ones are not."
        ),
    ] = False

    def mistakes(self) -> Iterator[Mistake]:
        if self.storage == "s3" and self.s3.bucket is None:
            yield Mistake("media.storage: s3 needs a bucket", ("storage", "s3"))
