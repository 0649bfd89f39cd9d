"""Glob-style patterns: their matches, and a bound on their time."""

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import BadJson
from homeserver.protocol.filters import MAX_TYPE_PATTERNS, parse_room_event_filter
from homeserver.protocol.glob import Glob, GlobSet, WordText
from homeserver.protocol.server_acl import ServerAcl, is_server_allowed
from tests.protocol.authorization.auth_builders import ALICE

patterns = st.text("ab?*.", max_size=7)
texts = st.text("ab. _é", max_size=16)
HUGE = 65_000
MAX_SECONDS = 1  # of processor time; backtracking would take hours, or the age of the universe


def test_examples_of_the_specification_for_whole_values() -> None:
    """A rule matches what the specification promises its author."""
    glob = Glob("lunc?*")

    assert glob.matches("lunch plans")
    assert glob.matches("lunch")
    assert not glob.matches(" lunch")
    assert not glob.matches("lunc")


def test_examples_of_the_specification_for_words() -> None:
    """Keywords are found anywhere, and may span several words."""
    glob = Glob("ex*ple")

    assert glob.matches_words("an example event.")
    assert glob.matches_words("exple")
    assert glob.matches_words("an exciting triple-whammy")
    assert not glob.matches_words("an inexpert sample")


def test_keyword_does_not_match_a_part_of_another_word() -> None:
    """A user with the keyword "tea" is not notified of a "team"."""
    glob = Glob("tea")

    assert glob.matches_words("it is time for tea!")
    assert glob.matches_words("team? no, tea")
    for text in ("the team", "tea_time", "tea4two", "protea"):
        assert not glob.matches_words(text)


def test_special_characters_stand_for_themselves() -> None:
    """A keyword is not a regular expression."""
    assert Glob("[c++]").matches("[c++]")
    assert not Glob("a.c").matches("abc")
    assert Glob("c++").matches_words("we like c++ here")
    assert WordText("what? is *he* doing").contains("*he*")
    assert not WordText("what is she doing").contains("*he*")
    assert not WordText("nobody").contains("")


@given(patterns, texts)
def test_whole_values_match_as_specified(pattern: str, text: str) -> None:
    """`*` is any text and `?` any character, in any context."""
    expected = re.fullmatch(_regex(pattern), text, re.DOTALL) is not None

    assert Glob(pattern).matches(text) == expected


@given(patterns, texts)
def test_words_match_as_specified(pattern: str, text: str) -> None:
    """A match is not adjacent to a letter, digit or underscore."""
    bounded = rf"(?<![a-z0-9_])(?:{_regex(pattern)})(?![a-z0-9_])"
    expected = re.search(bounded, text, re.DOTALL) is not None

    assert Glob(pattern).matches_words(text) == expected


@given(st.text("ab. é", min_size=1, max_size=4), texts)
def test_plain_words_are_found_as_a_pattern_would_find_them(words: str, text: str) -> None:
    """A name is mentioned wherever the same keyword would be found."""
    assert WordText(text).contains(words) == Glob(words).matches_words(text)


@given(st.lists(patterns, max_size=6), texts)
def test_a_set_matches_what_one_of_its_patterns_matches(given: list[str], text: str) -> None:
    """Matching all patterns at once does not change the result."""
    assert GlobSet(given, 16).matches(text) == any(Glob(each).matches(text) for each in given)


@given(st.lists(patterns, max_size=6), st.text("ab?", max_size=6))
def test_a_question_mark_may_stand_for_itself(given: list[str], text: str) -> None:
    """Event types in filters know the star alone."""
    expected = any(re.fullmatch(_regex(each, one=r"\?"), text) for each in given)

    assert GlobSet(given, 12, single=False).matches(text) == expected


HOSTILE = [
    ("*a" * 5 + "b", "a" * HUGE),
    ("*a" * (HUGE // 2) + "b", "a" * HUGE),
    ("a*" * 400 + "b", "ab" * (HUGE // 2)),
    ("*a?" * 300 + "b", "a" * HUGE),
    ("?*" * 500 + "b", "a" * HUGE),
    ("a?" * 500, "a" * HUGE),
    ("-aa" * (HUGE // 6) + "-a", "-aa" * (HUGE // 3)),
    ("a" * (HUGE // 2), "a" * HUGE),
    ("a " * (HUGE // 4) + "a", "a " * (HUGE // 4 - 1) + "aa" + " a" * (HUGE // 4)),
    ("?" * 1_000, "a" * HUGE),
]


@pytest.mark.parametrize(("pattern", "text"), HOSTILE, ids=lambda text: text[:9])
def test_no_pattern_takes_longer_than_a_moment(pattern: str, text: str) -> None:
    """A user, or another server, cannot stop this one with a few characters."""
    glob = Glob(pattern)

    _soon(lambda: glob.matches(text))
    _soon(lambda: glob.matches_words(text))
    words = WordText(text)
    _soon(lambda: [words.contains(pattern) for _ in range(20)])


def test_a_list_full_of_hostile_entries_takes_no_longer() -> None:
    """One event may have ten thousand entries, and every event is checked against them."""
    hosts = ["a" * 240 + ".example", "a.b" * 80, "127.0.0.1", "[::1]"]
    entries = [f"*a?{'*a' * (number % 7)}{number:x}b" for number in range(6_000)]
    content = {"deny": [*entries, "*a*a*a*a*b", 5, None, "é*"], "allow": ["*"]}
    acls: list[ServerAcl] = []

    _soon(lambda: acls.append(ServerAcl(content)))
    _soon(lambda: [acls[0].is_allowed(host) for host in hosts for _ in range(20)])
    assert is_server_allowed("example.org", content)
    assert not is_server_allowed("aaaab", content)


def test_a_filter_has_few_patterns_and_any_number_of_names() -> None:
    """A client can list any number of names, but not thousands of patterns."""
    names = [f"org.example.{number}" for number in range(5_000)]

    assert parse_room_event_filter({"types": names}).matches(names[-1], ALICE, {})
    with pytest.raises(BadJson):
        parse_room_event_filter(
            {"not_types": [f"{name}*" for name in names[: MAX_TYPE_PATTERNS + 1]]}
        )


def _soon(work: Callable[[], object]) -> None:
    started = time.process_time()
    work()
    assert time.process_time() - started < MAX_SECONDS


def _regex(pattern: str, one: str = ".") -> str:
    parts = {"*": ".*", "?": one}
    return "".join(parts.get(character, re.escape(character)) for character in pattern)
