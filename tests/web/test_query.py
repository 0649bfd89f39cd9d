"""Query strings: parameters as browsers and libraries write them."""

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from homeserver.web.query import parse_query

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
