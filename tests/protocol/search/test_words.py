"""Words: what of a text is in the index, for any language and any garbage."""

import string
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from homeserver.protocol.search import words
from homeserver.protocol.search.search_term import SearchTerm
from homeserver.protocol.search.words import (
    MAX_TEXT,
    MAX_TOKENS,
    MAX_WORD,
    indexed_tokens,
    normalised,
)

CJK = st.text(
    st.sampled_from("的是不我北京東京タワーにひらがな한국어학교오늘สวัสดีครับລາວខ្មែរ၁မြန်"),
    min_size=1,
    max_size=30,
)
WORDS = st.lists(st.text(string.ascii_letters + string.digits + "äßñжшαω", min_size=1), min_size=1)


def tokens(text: str) -> list[str]:
    return indexed_tokens(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World! Hello?", ["hello", "world", "hello"]),
        ("snake_case and don't", ["snake", "case", "and", "don", "t"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("İstanbul ΣΊΣΥΦΟΣ", ["i̇stanbul", "σίσυφοσ"]),
        ("ＡＢＣ ½ ﬁsh", ["abc", "1", "2", "fish"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("co\u00adoperate\u200d", ["cooperate"]),
        ("学校", ["学校", "校"]),
        ("我x校", ["我", "x", "校"]),
        ("ｶﾞｯｺｳ", ["ガッ", "ッコ", "コウ", "ウ"]),
        ("한국어", ["한국", "국어", "어"]),
        ("iPhone15を買う", ["iphone15", "を買", "買う", "う"]),
        ("、。！？・ 😀 ♥ \u0000", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    """A user finds a text by what they would call its words."""
    assert tokens(text) == expected


@given(st.text(), st.text())
def test_any_text_has_words(text: str, term: str) -> None:
    """No message and no search term is an error; tokens can be written as lexemes."""
    for token in tokens(text):
        assert token
        assert not set(token) & set(" '\\:&|!()<>#@\0")
    SearchTerm(term).matches(text)
    list(SearchTerm(term).highlights(text))
    list(SearchTerm(term).index_tokens())


@given(st.text(st.characters(exclude_categories=())))
def test_lone_surrogates_are_no_words(text: str) -> None:
    """What cannot be encoded never reaches the database."""
    for token in tokens(text):
        token.encode()


@given(CJK, st.data())
def test_any_part_of_a_text_without_spaces_is_found(text: str, data: st.DataObject) -> None:
    """A user who types any part of such a text finds it, by the index and by the check."""
    start = data.draw(st.integers(0, len(text) - 1))
    part = text[start : data.draw(st.integers(start + 1, len(text)))]
    term = SearchTerm(part)
    found = tokens(text)

    assert term.matches(text)
    for token, is_prefix in term.index_tokens():
        assert token in found or (is_prefix and any(each.startswith(token) for each in found))


@given(WORDS, st.data())
def test_any_words_of_a_text_find_it(words: list[str], data: st.DataObject) -> None:
    """Words find a text in any order and case, and the last one need not be finished."""
    text = " ".join(words)
    chosen = data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=5))

    assert SearchTerm(" ".join(chosen)).matches(text.upper() if text.isascii() else text)
    last = normalised(chosen[-1])[:5]
    if len(last) == 5 and last.isascii():
        assert SearchTerm(f"{' '.join(chosen[:-1])} {last}").matches(text)


@given(st.text(), st.text())
def test_the_index_has_what_the_check_wants(text: str, term_text: str) -> None:
    """The check never finds what the index would have left out."""
    term = SearchTerm(term_text)
    found = tokens(text)
    if term.matches(text):
        for token, is_prefix in term.index_tokens():
            assert token in found or (is_prefix and any(each.startswith(token) for each in found))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "a " * 100_000,
        "学" * 100_000,
        "".join(map(chr, range(0x4E00, 0x9FFF))) * 3,
        "\u0301\u0316" * 50_000,
        "\ufdfa" * 50_000,
        "\u0344" * 50_000,
        "word" + "\u200d" * 50_000,
        " ".join(map(str, range(50_000))),
    ],
)
def test_what_is_indexed_is_bounded(text: str) -> None:
    """A message of any length and content has a bounded number of words, of bounded length."""
    assert len(normalised(text)) <= MAX_TEXT
    found = tokens(text)
    assert len(found) <= MAX_TOKENS
    assert all(len(token) <= MAX_WORD for token in found)


def test_terms_that_do_not_match() -> None:
    """A user does not find what lacks one of the words."""
    assert not SearchTerm("hello there").matches("hello world")
    assert not SearchTerm("ell").matches("hello")
    assert not SearchTerm("hel lo").matches("hello lo")
    assert not SearchTerm("東行").matches("東京に行く")
    assert not SearchTerm("京東").matches("東京")
    assert not SearchTerm("").matches("hello")


def test_highlights_are_as_in_the_text() -> None:
    """A client marks the words where they are, in their own form."""
    assert list(SearchTerm("strasse").highlights("Große STRASSE, Straße")) == ["STRASSE", "Straße"]
    assert list(SearchTerm("the mart").highlights("The Martians")) == ["The", "Martians"]
    assert list(SearchTerm("タワー").highlights("東京タワーへ")) == ["タワー"]


@given(st.text(min_size=1), st.integers(0, 30))
def test_long_texts_are_normalised_in_parts(text: str, shift: int) -> None:
    """A character and its marks are one, wherever a part ends between them."""
    # Of an iota below, it depends on what is beside it when the case is folded.
    assume("\u0345" not in unicodedata.normalize("NFKD", text))
    text = "x" * shift + text
    with pytest.MonkeyPatch.context() as patch:
        whole = normalised(normalised(text))
        patch.setattr(words, "MAX_PART", 8)
        assert normalised(normalised(text)) == whole


def test_characters_that_become_many() -> None:
    """A text that would grow to eighteen times its size takes no longer than others."""
    with pytest.MonkeyPatch.context() as patch:
        sizes: list[int] = []
        normalize = unicodedata.normalize

        def watched(form: Any, text: str) -> str:
            normal = normalize(form, text)
            sizes.append(len(normal))
            return normal

        patch.setattr(words.unicodedata, "normalize", watched)
        assert len(normalised("\ufdfa" * MAX_TEXT)) == MAX_TEXT
    assert sum(sizes) <= 4 * MAX_TEXT
