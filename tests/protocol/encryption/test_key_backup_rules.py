"""Which of two keys for a session a backup keeps: examples of the specification, and laws."""

from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.encryption.key_backup_rules import (
    MAX_INTEGER,
    KeyBackupData,
    KeyRank,
    is_replaced,
    rank,
)

# Few values, so that many keys differ in one member only.
ranks = st.builds(
    rank,
    is_verified=st.booleans(),
    first_message_index=st.integers(0, 2),
    forwarded_count=st.integers(0, 2),
)


def kept(stored: KeyRank, uploaded: KeyRank) -> KeyRank:
    """The key that a backup has after an upload."""
    return uploaded if is_replaced(stored, uploaded) else stored


def key(*, verified: bool, index: int, forwarded: int) -> KeyRank:
    return rank(is_verified=verified, first_message_index=index, forwarded_count=forwarded)


def test_a_verified_key_replaces_an_unverified_one_whatever_else() -> None:
    """A key that the user's device trusts is worth more than one that decrypts more."""
    unverified = key(verified=False, index=0, forwarded=0)
    verified = key(verified=True, index=9, forwarded=9)

    assert is_replaced(unverified, verified)
    assert not is_replaced(verified, unverified)


def test_of_equally_verified_keys_the_one_for_more_messages_is_kept() -> None:
    """A lower index decrypts earlier messages too."""
    later = key(verified=True, index=3, forwarded=0)
    earlier = key(verified=True, index=2, forwarded=9)

    assert is_replaced(later, earlier)
    assert not is_replaced(earlier, later)


def test_of_equal_keys_the_one_that_was_forwarded_less_is_kept() -> None:
    """Fewer devices had the chance to change it."""
    twice = key(verified=False, index=2, forwarded=2)
    once = key(verified=False, index=2, forwarded=1)

    assert is_replaced(twice, once)
    assert not is_replaced(once, twice)


@given(ranks)
def test_the_same_key_again_changes_nothing(one: KeyRank) -> None:
    """A client that repeats an upload does not wake other clients by a new etag."""
    assert not is_replaced(one, one)


@given(ranks, ranks)
def test_at_most_one_of_two_keys_replaces_the_other(one: KeyRank, other: KeyRank) -> None:
    """Two devices cannot replace each other's key without end."""
    assert not (is_replaced(one, other) and is_replaced(other, one))
    assert is_replaced(one, other) or is_replaced(other, one) or one == other


@given(st.lists(ranks, min_size=1, max_size=5))
def test_the_order_of_uploads_does_not_matter(uploads: list[KeyRank]) -> None:
    """Whichever device comes first, the backup ends with the best key."""
    results = {reduce(kept, order) for order in permutations(uploads)}

    assert len(results) == 1


def test_session_data_keeps_its_bytes() -> None:
    """It is encrypted, and parts of it that the server does not know may matter to the client."""
    data = b'{"b" : 1.0,\t"a":"\\u0000\\u00e9", "a": 1e2}'
    body = (
        b'{"first_message_index":0,"forwarded_count":1,"is_verified":true,"session_data":%s }'
        % data
    )

    decoded = msgspec.json.decode(body, type=KeyBackupData)

    assert bytes(decoded.session_data) == data


@pytest.mark.parametrize("index", [-1, MAX_INTEGER + 1, 0.5, "0", None, True])
def test_a_count_is_an_integer_of_the_protocol(index: object) -> None:
    """Other values could not be compared, or stored."""
    body = {
        "first_message_index": index,
        "forwarded_count": 0,
        "is_verified": True,
        "session_data": {},
    }

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=KeyBackupData)
