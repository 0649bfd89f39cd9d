"""Files in `multipart/mixed`: what is written is read, however it is cut; garbage is refused."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.media.multipart import (
    MAX_HEAD,
    MAX_PREAMBLE,
    MultipartError,
    MultipartReader,
    after_file,
    before_file,
    boundary_in,
)

BOUNDARY = "abcdef"
HEADERS = {"Content-Type": "image/png", "Content-Disposition": "inline; filename=a"}


def read(pieces: Iterable[bytes], boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a body that comes in these pieces."""
    reader = MultipartReader(boundary)
    parts: list[tuple[dict[str, str], bytes]] = []
    for piece in pieces:
        for item in reader.feed(piece):
            if isinstance(item, bytes):
                parts[-1] = (parts[-1][0], parts[-1][1] + item)
            else:
                parts.append((dict(item), b""))
    reader.check_complete()
    return parts


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([b"\r\n", b"--abcdef", b"--abcde", b"-", b"\r", b"\n", b"x"])).map(
            b"".join
        ),
    ),
    cuts=st.lists(st.integers(min_value=0, max_value=500)),
)
def test_what_is_written_is_read_however_it_is_cut(content, cuts):
    """A file is the same on both servers."""
    if b"\r\n--abcdef" in b"\r\n" + content:
        return  # a boundary is chosen so that this does not happen
    whole = before_file(BOUNDARY, HEADERS) + content + after_file(BOUNDARY)
    places = sorted({0, *[cut for cut in cuts if cut < len(whole)], len(whole)})
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]

    assert read(pieces) == [
        ({"content-type": "application/json"}, b"{}"),
        ({name.lower(): value for name, value in HEADERS.items()}, content),
    ]


@given(st.lists(st.binary(max_size=50)))
def test_any_bytes_are_read_or_refused(pieces):
    """Garbage of another server is no internal error."""
    try:
        read(pieces)
    except MultipartError:
        return
    pytest.fail("no random bytes are a whole body")


def test_forms_of_other_servers():
    """A preamble, spaces after a delimiter, no headers, no body, and an epilogue are allowed."""
    whole = (
        b"preamble\r\n--abcdef \t\r\n\r\n{}\r\n"
        b"--abcdef\r\nLocation: https://example.org/\r\n\r\n\r\n--abcdef--\r\nepilogue"
    )
    short = b"--abcdef\r\nA: b\r\n\r\n--abcdef\r\nLocation: x\r\n\r\n--abcdef--"

    assert read([whole]) == [({}, b"{}"), ({"location": "https://example.org/"}, b"")]
    assert read([short]) == [({"a": "b"}, b""), ({"location": "x"}, b"")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"text",
        b"--abcdef--\r\n",
        b"--abcdef\r\n\r\n{}\r\n--abcdef--\r\n",
        b"--abcdef\r\n\r\n{}\r\n--abcdef\r\n\r\nx",
        b"--abcdef\r\n\r\n{}\r\n--abcdefg\r\n\r\nx\r\n--abcdef--",
        b"--abcdef\r\nno colon\r\n\r\n{}\r\n--abcdef\r\n\r\nx\r\n--abcdef--",
        b"--abcdef\r\n\r\na\r\n--abcdef\r\n\r\nb\r\n--abcdef\r\n\r\nc\r\n--abcdef--",
        b"x" * (MAX_PREAMBLE + 10),
        b"--abcdef\r\nA: " + b"x" * (MAX_HEAD + 10),
        b"--abcdef" + b" " * (MAX_HEAD + 10),
    ],
)
def test_other_bodies_are_refused(body):
    """A file is stored only if it is known to be whole."""
    with pytest.raises(MultipartError):
        read([body])


def test_memory_does_not_grow_with_the_file():
    """A file of a hundred megabytes is passed on as it arrives."""
    reader = MultipartReader(BOUNDARY)
    list(reader.feed(before_file(BOUNDARY, HEADERS)))

    for _ in range(100):
        passed = sum(len(piece) for piece in reader.feed(b"\r\n--abcde" * 10_000))

        assert passed > 89_000
        assert len(reader._buffer) < 20


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/mixed; boundary=abc", "abc"),
        ('Multipart/Mixed;charset=utf-8; Boundary="a b:c"', "a b:c"),
    ],
)
def test_boundary(content_type, boundary):
    """Servers write the boundary in several ways."""
    assert boundary_in(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "image/png",
        "multipart/form-data; boundary=a",
        "multipart/mixed",
        "multipart/mixed; boundary=",
        'multipart/mixed; boundary=""',
        "multipart/mixed; boundary=" + "a" * 71 + "\r\n",
        "multipart/mixed; boundary=ä",
        "multipart/mixed;" + "a=b;" * 1_000 + "boundary=c",
    ],
)
def test_no_boundary(content_type):
    """A response without a boundary has no parts."""
    with pytest.raises(MultipartError):
        boundary_in(content_type)
