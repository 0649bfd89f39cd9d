"""Media IDs, content types, file names and byte ranges: what hostile input becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import NotFound
from homeserver.protocol.media.byte_ranges import ByteRange, RangeNotSatisfiable, parse_range
from homeserver.protocol.media.content_disposition import (
    filename_in,
    format_disposition,
    normal_filename,
)
from homeserver.protocol.media.content_types import (
    INLINE_TYPES,
    UNKNOWN,
    may_be_inline,
    normal_content_type,
)
from homeserver.protocol.media.media_ids import MediaId, parse_media_id


@pytest.mark.parametrize(
    "media_id", ["..", ".", "", "a/b", "a%2fb", "ä", "a b", "a\n", "a\0", "x" * 256, "a.b"]
)
def test_media_ids_that_could_be_paths_do_not_exist(media_id):
    """No address leads out of the media folder."""
    with pytest.raises(NotFound):
        parse_media_id("example.org", media_id)


@pytest.mark.parametrize("server", ["", "a/b", "example.org/..", "exam ple", "a\n", "[::"])
def test_server_names_are_validated(server):
    """No request is sent to a name that is none."""
    with pytest.raises(NotFound):
        parse_media_id(server, "abc")


def test_uri_and_name_are_one():
    """Clients get the URI that they send."""
    name = MediaId("example.org:8448", "AZaz09_-")

    assert str(name) == "mxc://example.org:8448/AZaz09_-"
    assert MediaId.parse(str(name)) == name


@pytest.mark.parametrize("uri", ["", "mxc://", "mxc://a", "mxc://a/", "mxc:///b", "http://a/b"])
def test_other_uris_are_refused(uri):
    """A malformed URI names no file."""
    with pytest.raises(ValueError, match=r"mxc|server"):
        MediaId.parse(uri)


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "text/plain; charset=utf-8", 'text/plain;charset="utf-8"', "IMAGE/PNG"],
)
def test_well_formed_types_are_kept(content_type):
    """A file has the type that its uploader gave it."""
    assert normal_content_type(content_type) == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "png",
        "image/",
        "image/png\r\nX-Evil: 1",
        "image/png, text/html",
        "image/png;",
        "image/png; a",
        "ä/b",
        "a/" + "b" * 255,
    ],
)
def test_other_types_are_unknown(content_type):
    """A type cannot smuggle a header in."""
    assert normal_content_type(content_type) == UNKNOWN


def test_only_listed_types_are_inline():
    """A browser runs no script of a file."""
    assert len(INLINE_TYPES) == 26
    assert may_be_inline("image/png")
    assert may_be_inline("Text/Plain; charset=utf-8")
    for dangerous in ("text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", UNKNOWN):
        assert not may_be_inline(dangerous)


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        (None, "inline"),
        ("ascii", "inline; filename=ascii"),
        ("a b.txt", 'inline; filename="a b.txt"'),
        ("a;b", 'inline; filename="a;b"'),
        ('a"b', "inline; filename*=utf-8''a%22b"),
        ("a\\b", "inline; filename*=utf-8''a%5Cb"),
        ("ä", "inline; filename*=utf-8''%C3%A4"),
        ("a%b", 'inline; filename="a%b"'),
    ],
)
def test_form_of_the_disposition(filename, header):
    """Every browser reads the same name."""
    assert format_disposition(filename, inline=True) == header
    assert format_disposition(filename, inline=False) == header.replace("inline", "attachment")


@given(st.text(max_size=300))
def test_every_name_survives_its_header(filename):
    """What another server reads is what was stored, and no name can end the header."""
    stored = normal_filename(filename)

    header = format_disposition(stored, inline=False)

    assert header.isascii()
    assert header.isprintable()
    assert filename_in(header) == stored


@given(st.text(max_size=100))
def test_any_header_of_another_server_is_read(header):
    """No header of another server is an internal error."""
    name = filename_in(f"inline; {header}")

    assert name is None or name == normal_filename(name)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, None),
        ("inline", None),
        ('attachment; filename="a \\"b\\".txt"', 'a "b".txt'),
        ("attachment; filename=plain; filename*=UTF-8''better", "better"),
        ("attachment; filename*=UTF-8'en'%e2%82%ac", "€"),
        ("attachment; filename*=utf-8''%ff", None),
        ("attachment; filename=a;filename=b", "a"),
        ("attachment; filename*=UTF-8''%0d%0aX", "X"),
        ("attachment; filename=" + "x" * 9_000, None),
        ("garbage", None),
    ],
)
def test_names_of_other_servers(header, name):
    """A remote file has the name that its server gave it."""
    assert filename_in(header) == name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-100", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("Bytes = 1-2", (1, 3)),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=a-b", None),
        ("bytes=١-٢", None),
        ("bytes=" + "0" * 90 + "-1", None),
        ("bytes=" + ",".join(["0-"] * 50), None),
    ],
)
def test_ranges(header, expected):
    """Players seek, and interrupted downloads continue."""
    found = parse_range(header, 10)

    assert found == (None if expected is None else ByteRange(*expected, 10))


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)]
)
def test_ranges_without_a_byte(header, size):
    """A client learns the size of the file."""
    with pytest.raises(RangeNotSatisfiable) as refused:
        parse_range(header, size)

    assert refused.value.headers() == {"Content-Range": f"bytes */{size}"}
