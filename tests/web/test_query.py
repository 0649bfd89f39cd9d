"""Paths and query strings: values as browsers and libraries write them."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import InvalidParam
from homeserver.web.query import MAX_REMEMBERED_BYTES, parse_query, split_path

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(texts, texts)))
def test_encoded_parameters_are_decoded(pairs: list[tuple[str, str]]) -> None:
    """A filter or a search term arrives unchanged, whatever it contains."""
    expected: dict[str, list[str]] = {}
    for name, value in pairs:
        expected.setdefault(name, []).append(value)

    assert parse_query(urlencode(pairs).encode()) == expected


def test_odd_forms_are_understood() -> None:
    """Parameters without a value, empty pairs and broken escapes all occur."""
    assert parse_query(b"a&b=&&c=d=e&f=%zz") == {"a": [""], "b": [""], "c": ["d=e"], "f": ["%zz"]}


@given(st.lists(texts, min_size=1), texts)
def test_segments_of_a_path_are_decoded(beginning: list[str], last: str) -> None:
    """Each time, whether a path with the same beginning has been seen before or not."""
    path = "".join(f"/{quote(segment, safe='')}" for segment in beginning).encode()

    for ending in (last, "", last):
        whole = path + f"/{quote(ending, safe='')}".encode()
        assert split_path(whole) == [*beginning, ending]


def test_unusual_paths_are_split() -> None:
    """A target need not begin with a slash, and may be as long as the head of a request."""
    assert split_path(b"*") == []
    assert split_path(b"/") == [""]
    assert split_path(b"/a") == ["a"]
    long = "x" * MAX_REMEMBERED_BYTES
    assert split_path(f"/{long}/a%2Fb".encode()) == [long, "a/b"]


@pytest.mark.parametrize("path", [b"/%ff/a", b"/a/%ff", b"/%00/a", b"/a/%00", b"%ff"])
def test_segments_that_are_not_text_are_refused(path: bytes) -> None:
    """Again and again: what is refused is not remembered as anything else."""
    for _ in range(2):
        with pytest.raises(InvalidParam):
            split_path(path)
