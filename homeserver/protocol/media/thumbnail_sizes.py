"""Thumbnail sizes: which of the configured ones a client gets for the one that it requests.

Any size can be requested, so a thumbnail for each would fill the disk and keep all processors busy.
A client gets the smallest configured one that is not smaller than its wish.

Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

Method = Literal["crop", "scale"]
UNBOUNDED = 65_535  # pixels; a size that no picture exceeds


class ThumbnailSize(msgspec.Struct, frozen=True):
    """Width and height in pixels.

    With "scale" the thumbnail fits into them and has the aspect ratio of the picture, with "crop"
    it has theirs.
    """

    width: int
    height: int
    method: Method


WHOLE_PICTURE = ThumbnailSize(UNBOUNDED, UNBOUNDED, "scale")
"""The size for wishes beyond all configured ones: the picture itself."""


def choose_size(sizes: Iterable[ThumbnailSize], wish: ThumbnailSize) -> ThumbnailSize:
    """The size of the thumbnail for a wish.

    A size with the other method is better than none: clients fit a thumbnail into its place anyway.
    """
    fitting = [size for size in sizes if size.width >= wish.width and size.height >= wish.height]
    return min(
        fitting,
        key=lambda size: (size.method != wish.method, size.width * size.height),
        default=WHOLE_PICTURE,
    )
