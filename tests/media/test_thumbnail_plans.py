"""The pure rules of thumbnails: the size for a wish, and the part of a picture that is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.media.thumbnails.worker import plan
from homeserver.protocol.media.thumbnail_sizes import WHOLE_PICTURE, ThumbnailSize, choose_size

SIZES = [
    ThumbnailSize(32, 32, "crop"),
    ThumbnailSize(96, 96, "crop"),
    ThumbnailSize(320, 240, "scale"),
    ThumbnailSize(640, 480, "scale"),
    ThumbnailSize(800, 600, "scale"),
]
sides = st.integers(min_value=1, max_value=5_000)


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ((32, 32, "crop"), SIZES[0]),
        ((33, 1, "crop"), SIZES[1]),
        ((1, 1, "scale"), SIZES[2]),
        ((320, 241, "scale"), SIZES[3]),
        ((97, 97, "crop"), SIZES[2]),
        ((801, 1, "scale"), WHOLE_PICTURE),
        ((65_535, 65_535, "crop"), WHOLE_PICTURE),
    ],
)
def test_the_smallest_sufficient_size(wish, size):
    """A thumbnail is never smaller than the wish."""
    assert choose_size(SIZES, ThumbnailSize(*wish)) == size


@given(sides, sides, sides, sides, st.sampled_from(["scale", "crop"]))
def test_nothing_is_enlarged(own_width, own_height, width, height, method):
    """A thumbnail has no more pixels in either direction than the part that it shows."""
    made = plan((own_width, own_height), width, height, method)

    if made is None:
        assert own_width <= width
        assert own_height <= height
        return
    left, top, right, bottom = made.box
    assert -0.01 <= left < right <= own_width + 0.01
    assert -0.01 <= top < bottom <= own_height + 0.01
    assert made.width <= max(1, round(right - left))
    assert made.height <= max(1, round(bottom - top))
    assert made.width <= width
    assert made.height <= height


@pytest.mark.parametrize(
    ("own", "size", "method", "expected"),
    [
        ((4_000, 3_000), (800, 600), "scale", (800, 600)),
        ((3_000, 4_000), (800, 600), "scale", (450, 600)),
        ((4_000, 3_000), (96, 96), "crop", (96, 96)),
        ((10_000, 10), (96, 96), "scale", (96, 1)),
        ((50, 500), (96, 96), "crop", (50, 50)),
        ((96, 97), (96, 96), "crop", (96, 96)),
    ],
)
def test_sizes_of_thumbnails(own, size, method, expected):
    """With "scale" the aspect ratio is that of the picture, with "crop" that of the size."""
    made = plan(own, *size, method)

    assert made is not None
    assert (made.width, made.height) == expected
