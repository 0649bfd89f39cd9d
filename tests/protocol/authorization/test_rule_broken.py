"""The numbers of the rules, checked against the specification of each room version."""

import pytest

from homeserver.protocol.authorization.rule_broken import rule_number
from homeserver.protocol.room_versions import ROOM_VERSIONS

# Rule of version 12 -> the same rule in the versions 1 to 5, 6, 7, 8 and 9, 10 and 11.
SAME_RULE = {
    "1.1": ("1.1", "1.1", "1.1", "1.1", "1.1"),
    "1.3": ("1.3", "1.3", "1.3", "1.3", "1.3"),
    "3.1": ("2.1", "2.1", "2.1", "2.1", "2.1"),
    "3.5": ("2.5", "2.5", "2.5", "2.5", "2.5"),
    "4": ("3", "3", "3", "3", "3"),
    "5.1": ("5.1", "4.1", "4.1", "4.1", "4.1"),
    "5.3.2": ("5.2.2", "4.2.2", "4.2.2", "4.3.2", "4.3.2"),
    "5.3.7": ("5.2.6", "4.2.6", "4.2.6", "4.3.7", "4.3.7"),
    "5.4.1.5": ("5.3.1.5", "4.3.1.5", "4.3.1.5", "4.4.1.5", "4.4.1.5"),
    "5.5.1": ("5.4.1", "4.4.1", "4.4.1", "4.5.1", "4.5.1"),
    "5.6.3": ("5.5.3", "4.5.3", "4.5.3", "4.6.3", "4.6.3"),
    "5.8": ("5.6", "4.6", "4.7", "4.8", "4.8"),
    "6": ("6", "5", "5", "5", "5"),
    "7.1": ("7.1", "6.1", "6.1", "6.1", "6.1"),
    "8": ("8", "7", "7", "7", "7"),
    "9": ("9", "8", "8", "8", "8"),
    "10.3": ("10.1", "9.1", "9.1", "9.1", "9.3"),
    "10.6.1": ("10.3.1", "9.3.1", "9.3.1", "9.3.1", "9.5.1"),
    "10.7.1": ("10.4.1", "9.4.1", "9.4.1", "9.4.1", "9.6.1"),
    "10.8.1": ("10.5.1", "9.5.1", "9.5.1", "9.5.1", "9.7.1"),
    "10.9.1": ("10.6.1", "9.6.1", "9.6.1", "9.6.1", "9.8.1"),
    "10.10.1": ("10.7.1", "9.7.1", "9.7.1", "9.7.1", "9.9.1"),
}
COLUMNS = (("1", "2", "3", "4", "5"), ("6",), ("7",), ("8", "9"), ("10", "11"))


@pytest.mark.parametrize("rule", SAME_RULE)
def test_a_rule_keeps_its_number_in_version_12(rule: str) -> None:
    """The code uses the numbers of version 12."""
    assert rule_number(ROOM_VERSIONS["12"], rule) == rule


@pytest.mark.parametrize("rule", SAME_RULE)
def test_a_rule_has_the_number_of_the_version_of_the_room(rule: str) -> None:
    """A reader of the log finds the rule in the specification of the room's own version."""
    numbers = [
        {rule_number(ROOM_VERSIONS[version], rule) for version in column} for column in COLUMNS
    ]

    assert numbers == [{expected} for expected in SAME_RULE[rule]]


@pytest.mark.parametrize(("rule", "of_versions"), [("5.7.1", "4.6.1"), ("5.7.4", "4.6.4")])
def test_knocks_have_a_number_from_version_7_on(rule: str, of_versions: str) -> None:
    """The rule on knocks came before the one on the signature of restricted joins."""
    assert rule_number(ROOM_VERSIONS["7"], rule) == of_versions
    assert rule_number(ROOM_VERSIONS["8"], rule) == of_versions.replace("4.6", "4.7")


def test_restricted_joins_have_a_number_from_version_8_on() -> None:
    """Rules 5.2 and 5.3.5 of version 12 are 4.2 and 4.3.5 there."""
    version = ROOM_VERSIONS["8"]

    assert rule_number(version, "5.2.1") == "4.2.1"
    assert rule_number(version, "5.3.5.2") == "4.3.5.2"


@pytest.mark.parametrize("version", ["10", "11"])
def test_the_types_of_levels_have_numbers_from_version_10_on(version: str) -> None:
    """Rules 10.1 and 10.2 of version 12 are 9.1 and 9.2 there."""
    assert rule_number(ROOM_VERSIONS[version], "10.1") == "9.1"
    assert rule_number(ROOM_VERSIONS[version], "10.2") == "9.2"
