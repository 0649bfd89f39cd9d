"""Dot-separated property paths, by the examples of the specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.property_paths import split_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("content.body", ["content", "body"]),
        (r"content.m\.relates_to", ["content", "m.relates_to"]),
        (r"content.m\\foo", ["content", "m\\foo"]),
        (r"content.m\xfoo", ["content", "m\\xfoo"]),
        ("content..a", ["content", "", "a"]),
        ("trailing\\", ["trailing\\"]),
        ("", [""]),
    ],
)
def test_a_path_is_split_at_its_dots(path: str, names: list[str]) -> None:
    """Push conditions and filters of all clients are written this way."""
    assert split_path(path) == names


@given(st.lists(st.text(), min_size=1))
def test_every_path_of_names_can_be_written(names: list[str]) -> None:
    """With dots and backslashes escaped, nothing is lost."""
    path = ".".join(name.replace("\\", r"\\").replace(".", r"\.") for name in names)

    assert split_path(path) == names
