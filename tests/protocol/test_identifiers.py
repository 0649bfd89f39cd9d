"""Identifiers: the examples and limits of the appendix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.identifiers import (
    InvalidIdentifier,
    check_localpart,
    fits_id_limit,
    is_compliant_user_id,
    is_valid_event_id,
    is_valid_key_version,
    is_valid_namespaced_id,
    is_valid_opaque_id,
    is_valid_room_id,
    is_valid_server_name,
    is_valid_user_id,
    parse_room_alias,
    parse_server_name,
    parse_user_id,
    server_name_of,
)

HASH = "CD66HAED5npg6074c6pDtLKalHjVfYb2q4Q3LZgrW6o"
GOOD_SERVERS = {
    "matrix.org": ("matrix.org", None, False),
    "matrix.org:8888": ("matrix.org", 8888, False),
    "1.2.3.4": ("1.2.3.4", None, True),
    "1.2.3.4:1234": ("1.2.3.4", 1234, True),
    "[1234:5678::abcd]": ("1234:5678::abcd", None, True),
    "[1234:5678::abcd]:5678": ("1234:5678::abcd", 5678, True),
    "localhost": ("localhost", None, False),
    "UPPER.example": ("UPPER.example", None, False),
    "3com.example": ("3com.example", None, False),
}
BAD_SERVERS = [
    "",
    ":80",
    "a:",
    "a:123456",
    "a:port",
    "a b",
    "a_b.example",
    "exämple.org",
    "256.1.1.1",
    "[::1",
    "[1234:5678::abcd::]",
    "[1.2.3.4]",
    "[]",
    "::1",
    "a\n",
    "a/b",
    "a@b",
    "a" * 256,
]


@pytest.mark.parametrize(("text", "parts"), GOOD_SERVERS.items())
def test_server_names_are_parsed(text, parts):
    """The examples of the specification and others: how another server is found."""
    assert parse_server_name(text) == parts
    assert is_valid_server_name(text)


@pytest.mark.parametrize("text", BAD_SERVERS)
def test_what_cannot_be_a_server_name_is_refused(text):
    """A name is used in URLs and DNS queries, so that odd characters are attacks."""
    assert not is_valid_server_name(text)
    assert not is_valid_user_id(f"@a:{text}")
    with pytest.raises(InvalidIdentifier):
        parse_server_name(text)


@pytest.mark.parametrize("server_name", GOOD_SERVERS)
def test_user_ids_are_split_at_the_first_colon(server_name):
    """Server names hold colons themselves."""
    user_id = parse_user_id(f"@alice:{server_name}")

    assert user_id == ("alice", server_name)
    assert server_name_of(f"@alice:{server_name}") == server_name


@pytest.mark.parametrize("localpart", ["", "Alice", "al ice", "al\nice", "日本", "a*", "\x01"])
def test_historical_user_ids_are_accepted_from_other_servers(localpart):
    """Rooms with such members must keep working."""
    assert parse_user_id(f"@{localpart}:domain") == (localpart, "domain")
    assert is_valid_user_id(f"@{localpart}:domain")


@pytest.mark.parametrize(
    ("localpart", "compliant"),
    [("alice", True), ("Al*ice!", True), ("", False), ("al ice", False), ("日本", False)],
)
def test_only_printable_ascii_is_compliant(localpart, compliant):
    """Clients do not get others outside of events."""
    assert is_compliant_user_id(f"@{localpart}:domain") is compliant


@pytest.mark.parametrize(
    "text", ["", "@", "alice", "@alice", "alice:domain", "#a:domain", "@a\x00:domain", "@\ud800:d"]
)
def test_what_is_no_user_id_is_refused(text):
    """Every sender and every path parameter is checked by this."""
    assert not is_valid_user_id(text)
    assert not is_compliant_user_id(text)
    with pytest.raises(InvalidIdentifier):
        parse_user_id(text)


@pytest.mark.parametrize("letter", ["a", "é", "日"])
def test_identifiers_are_limited_in_bytes_not_in_characters(letter):
    """The limit is that of a column in other servers' databases."""
    room = 255 - len("@:domain")
    size = len(letter.encode())

    assert is_valid_user_id(f"@{letter * (room // size)}:domain")
    assert not is_valid_user_id(f"@{letter * (room // size + 1)}:domain")


@given(st.text())
def test_the_limit_counts_utf8(text):
    """The fast check for ASCII must agree."""
    assert fits_id_limit(text) is (len(text.encode()) <= 255)


@pytest.mark.parametrize("localpart", ["alice", "a.b_c=d-e/f+9", "0"])
def test_names_of_the_present_grammar_may_be_registered(localpart):
    """All the characters that the specification allows."""
    check_localpart(localpart, "domain")


@pytest.mark.parametrize("localpart", ["", "Alice", "al ice", "alicé", "a:b", "a@b", "a\n", "a*"])
def test_other_names_may_not_be_registered(localpart):
    """Upper case above all: it would let a user impersonate another."""
    with pytest.raises(InvalidIdentifier):
        check_localpart(localpart, "domain")


def test_a_name_must_leave_room_for_the_server_name():
    """The whole user id is limited to 255 bytes."""
    longest = "a" * (255 - len("@:domain"))

    check_localpart(longest, "domain")

    with pytest.raises(InvalidIdentifier):
        check_localpart(longest + "a", "domain")


def test_room_aliases_are_parsed():
    """The server in an alias is the one to ask for the room."""
    assert parse_room_alias("#Café room:example.org:8448") == ("Café room", "example.org:8448")
    assert parse_room_alias("#:domain") == ("", "domain")


@pytest.mark.parametrize("text", ["", "#", "#a", "@a:domain", "#a\x00:domain", "#a:b:c", "#a:"])
def test_what_is_no_room_alias_is_refused(text):
    """The path of a request may contain anything."""
    with pytest.raises(InvalidIdentifier):
        parse_room_alias(text)


@pytest.mark.parametrize("sigil", ["!", "$"])
def test_room_and_event_ids_have_a_domain_or_none(sigil):
    """Both forms are in use, depending on the room version."""
    is_valid = is_valid_room_id if sigil == "!" else is_valid_event_id

    assert is_valid(f"{sigil}opaque:domain")
    assert is_valid(f"{sigil}{HASH}")
    assert is_valid("$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk".replace("$", sigil))
    assert not is_valid(f"{sigil}opaque:")
    assert not is_valid(f"{sigil}opaque:a:b")
    assert not is_valid(f"{sigil}a\x00b")
    assert not is_valid(f"#{HASH}")
    assert not is_valid(HASH)
    assert not is_valid(sigil + "x" * 255)
    assert not is_valid("")


def test_an_identifier_without_domain_has_no_server_name():
    """A room id of version 12 does not say where to find the room."""
    with pytest.raises(InvalidIdentifier):
        server_name_of(f"!{HASH}")


@pytest.mark.parametrize(
    ("is_valid", "good", "bad"),
    [
        (is_valid_key_version, ["1", "a_B9"], ["", "a-b", "a:b", "a b"]),
        (is_valid_opaque_id, ["a", "A-.9_~", "x" * 255], ["", "a b", "é", "x" * 256, "a\n"]),
        (is_valid_namespaced_id, ["m.direct", "a", "c-d_e.9"], ["", "9a", ".a", "A", "a" * 256]),
    ],
)
def test_the_smaller_grammars_accept_and_refuse(is_valid, good, bad):
    """Each is one line of the specification."""
    assert [text for text in good if not is_valid(text)] == []
    assert [text for text in bad if is_valid(text)] == []
