"""Glob-style patterns of push rules."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.push_rules.patterns import Glob, contains_words

patterns = st.text("ab?*.", max_size=7)
texts = st.text("ab. _", max_size=12)


def test_examples_of_the_specification_for_whole_values() -> None:
    """A rule matches what its author was promised."""
    glob = Glob("lunc?*")

    assert glob.matches("lunch plans")
    assert glob.matches("lunch")
    assert not glob.matches(" lunch")
    assert not glob.matches("lunc")


def test_examples_of_the_specification_for_words() -> None:
    """Keywords are found where they stand, and may span several words."""
    glob = Glob("ex*ple")

    assert glob.matches_words("an example event.")
    assert glob.matches_words("exple")
    assert glob.matches_words("an exciting triple-whammy")
    assert not glob.matches_words("an inexpert sample")


def test_keyword_is_no_part_of_another_word() -> None:
    """Who wants to hear of tea is not woken by a team."""
    glob = Glob("Tea")

    assert glob.matches_words("it is time for tea!")
    assert glob.matches_words("team? no, tea")
    for text in ("the team", "tea_time", "tea4two", "protea"):
        assert not glob.matches_words(text)


def test_special_characters_stand_for_themselves() -> None:
    """A keyword is no regular expression."""
    assert Glob("[c++]").matches("[c++]")
    assert not Glob("a.c").matches("abc")
    assert Glob("c++").matches_words("we like c++ here")
    assert contains_words("what? is *he* doing", "*he*")
    assert not contains_words("what is she doing", "*he*")


@given(patterns, texts)
def test_whole_values_match_as_the_text_defines_it(pattern: str, text: str) -> None:
    """`*` is any text and `?` any character, whatever stands around them."""
    expected = re.fullmatch(_regex(pattern), text, re.DOTALL) is not None

    assert Glob(pattern).matches(text) == expected


@given(patterns, texts)
def test_words_match_as_the_text_defines_it(pattern: str, text: str) -> None:
    """A match begins and ends where no letter, digit or underscore stands beside it."""
    bounded = rf"(?<![a-z0-9_])(?:{_regex(pattern)})(?![a-z0-9_])"
    expected = re.search(bounded, text, re.DOTALL) is not None

    assert Glob(pattern).matches_words(text) == expected


def test_pattern_full_of_wildcards_takes_no_time() -> None:
    """Nobody stops the server with a rule."""
    started = time.perf_counter()

    assert not Glob("*a" * 50 + "b").matches_words("a" * 10_000)
    assert not Glob("?*" * 50 + "b").matches("a" * 10_000)

    assert time.perf_counter() - started < 1


def _regex(pattern: str) -> str:
    parts = {"*": ".*", "?": "."}
    return "".join(parts.get(character, re.escape(character)) for character in pattern)
