"""Keys: a name is found by the words that are in it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.user_directory.keys import MAX_KEY, MAX_KEYS, NAME, USER_ID, fold, keys_of

TEXT = st.text(max_size=400)
MARKS = NAME + USER_ID
ALUND = "@alund:example.org"


def is_found(term: str, display_name: str, user_id: str = ALUND) -> bool:
    """Whether a term is the beginning of a key."""
    folded = fold(term)[:MAX_KEY]
    keys = [key.lstrip(MARKS) for key in keys_of(user_id, display_name)]
    return bool(folded) and any(key.startswith(folded) for key in keys)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Alice Ålund", "alice alund"),
        ("ÉLODIE-Marie O'Neil", "elodie marie o neil"),
        ("Straße", "strasse"),
        ("Łódź Øre", "lodz ore"),
        ("ＡＢＣ\u2003１２", "abc 12"),
        ("ﬁrst", "first"),
        ("김민수", "김민수"),
        ("がぎ", "がぎ"),
        ("ｶﾞ", "ガ"),
        ("हिन्दी", "हिन्दी"),
        ("שָׁלוֹם", "שלום"),
        ("İstanbul", "istanbul"),
        ("🦊 Fox 🦊", "🦊 fox 🦊"),
        ("a\0b\ud800%_\\^", "a b"),
        ("***", ""),
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    """Case, accents, width and punctuation do not matter; the letters of each script do."""
    assert fold(text) == folded


def test_ascii_is_folded_like_all_other_text() -> None:
    """The short way for ASCII has the same result as the long one."""
    for code in range(128):
        text = f"a{chr(code)}B"

        assert f"{fold(text)} 민" == fold(f"{text} 민")


@pytest.mark.parametrize(
    ("term", "display_name"),
    [
        ("al", "Alice Ålund"),
        ("ålu", "Alice Ålund"),
        ("alice al", "Alice Ålund"),
        ("lund", "Alice-Lund"),
        ("민수", "김민수"),
        ("김", "김민수"),
        ("小明", "王小明"),
        ("たろう", "やまだたろう"),
        ("fox", "狐fox"),
        ("สม", "นายสมชาย"),
        ("@alund:exam", "Alice"),
        ("alund:example.org", "Alice"),
    ],
)
def test_name_is_found(term: str, display_name: str) -> None:
    """By the beginning of a word; in scripts without spaces, by any part."""
    assert is_found(term, display_name)


@pytest.mark.parametrize("term", ["lice", "und", "example", "org", "alice b", "%", "_", "^", ""])
def test_name_is_not_found(term: str) -> None:
    """Neither within a word, nor by the server name, nor by a pattern."""
    assert not is_found(term, "Alice Ålund")


def test_first_key_of_a_name_is_marked() -> None:
    """The beginning of a name ranks before its other words."""
    assert keys_of("@al.und:example.org", "Alice Ålund") == [
        "@al und example org",
        "und example org",
        "^alice alund",
        "alund",
    ]


@given(TEXT, TEXT)
def test_keys_are_bounded_and_storable(localpart: str, display_name: str) -> None:
    """Whatever another server calls its users."""
    keys = keys_of(f"@{localpart}:example.org", display_name)

    assert len(keys) <= 2 * MAX_KEYS
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert len(key.lstrip(MARKS)) <= MAX_KEY
        assert "\n" not in key
        assert "\0" not in key
        key.encode()
        assert (
            key.lstrip(MARKS) == " ".join(key.lstrip(MARKS).split())
            or len(key.lstrip(MARKS)) == MAX_KEY
        )


@given(
    st.lists(st.text("김민수이서연王小明やまだ", min_size=2, max_size=8), min_size=1, max_size=2)
)
def test_any_part_of_a_name_without_spaces_is_found(words: list[str]) -> None:
    """Two syllables within a name find it."""
    for word in words:
        for start in range(len(word) - 1):
            assert is_found(word[start : start + 2], " ".join(words))


@given(st.text(st.characters(categories=["L"]), min_size=1, max_size=40))
def test_decomposed_name_is_found_by_the_composed_one(name: str) -> None:
    """Systems differ in how they write the same letters."""
    assert fold(unicodedata.normalize("NFD", name)) == fold(unicodedata.normalize("NFC", name))
