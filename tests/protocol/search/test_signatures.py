"""Signatures of texts: what a text has is always found, and hardly ever what it has not."""

import random

import pytest

from homeserver.protocol.search.search_term import SearchTerm
from homeserver.protocol.search.signatures import (
    signature,
    signature_places,
    text_numbers,
    unpack_numbers,
    wanted_numbers,
)

TEXT = "Der Donaudampfschiff Ⅷ ab Wien, 東京タワーと서울 ๑๒ กา x 𠀀𠀁 naïve"


def has(text: str, term: str) -> bool:
    """Whether a text seems to have a term, by its numbers."""
    wanted = wanted_numbers(SearchTerm(term).index_tokens())
    return wanted <= set(unpack_numbers(text_numbers(text)))


def signs(bits: bytes, numbers: set[int]) -> bool:
    """Whether a signature has all bits of some numbers, as PostgreSQL's `get_bit` counts."""
    return all(bits[place // 8 % len(bits)] >> place % 8 & 1 for place in signature_places(numbers))


TERMS = "donaudampfschiff|wien ab|VIII|タワー|京|と|울|กา|x|𠀀|𠀁|naï"


@pytest.mark.parametrize("term", TERMS.split("|"))
def test_what_a_text_has_is_found(term: str) -> None:
    """A user finds each word of a message, and any part of a script without spaces."""
    assert SearchTerm(term).matches(TEXT)
    assert has(TEXT, term)


def test_every_beginning_of_a_word_is_found() -> None:
    """A user finds a word while they are still typing it."""
    word = "donaudampfschifffahrt"
    assert all(has(f"ein {word}", word[:length]) for length in range(3, len(word) + 1))


def test_what_a_text_has_not_is_hardly_ever_found() -> None:
    """A search reads few events in vain."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijkl", k=8)) for _ in range(3_000)]

    wrong = sum(has(" ".join(words[:20]), f"{word} x") for word in words[1_000:])

    assert wrong <= 4


@pytest.mark.parametrize("count", [0, 1, 5, 1_000])
def test_signatures(count: int) -> None:
    """A signature has all of its numbers, and one in forty of the others."""
    numbers = set(range(0, 60 * count, 60))
    bits = signature(numbers)
    others = [number for number in range(0, 65_536, 7) if number not in numbers]

    assert all(signs(bits, {number}) for number in numbers)
    assert sum(signs(bits, {number}) for number in others) < len(others) / 25
    assert len(bits) <= 1.5 * count + 8
