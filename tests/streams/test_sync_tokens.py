"""Sync tokens: as short as can be, the same after a round trip, and refused where they make no
sense.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import InvalidParam
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.shards import SHARDS, shard_of, shard_of_user
from homeserver.streams.sync_tokens import MAX_AHEAD, SyncToken, parse_sync_token
from homeserver.streams.tokens import parse_history_token, parse_room_token, stream_token

MAX_URL = 16_384  # bytes of the first line of a request

shards = st.integers(0, SHARDS - 1)
bases = st.integers(0, MAX_POSITION - 1)


@st.composite
def tokens(draw: st.DrawFn) -> SyncToken:
    base = draw(bases)
    ahead = draw(st.dictionaries(shards, st.integers(base + 1, MAX_POSITION), max_size=5))
    return SyncToken(base, tuple(sorted(ahead.items())))


@given(tokens(), st.none() | bases, st.none() | bases)
def test_token_is_the_same_after_a_round_trip(
    token: SyncToken, to_device: int | None, sticky: int | None
) -> None:
    """A client gets what is new since exactly what it has."""
    whole = token._replace(to_device=to_device, sticky=sticky)

    assert parse_sync_token(whole.text) == whole


@given(tokens(), st.none() | bases, st.none() | bases)
def test_token_with_less_of_what_sticks_is_within_one_with_more(
    token: SyncToken, one: int | None, other: int | None
) -> None:
    """An acknowledgement of a part of the sticky events is none of all of them."""
    highest = [MAX_POSITION if each is None else each for each in (one, other)]

    is_within = token._replace(sticky=one).is_within(token._replace(sticky=other))

    assert is_within == (highest[0] <= highest[1])


@given(bases)
def test_token_of_one_owner_is_a_position(position: int) -> None:
    """Tokens of before stay valid, and one process makes no others."""
    assert SyncToken(position).text == stream_token(position)
    assert parse_sync_token(stream_token(position)) == SyncToken(position)


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "s", "s-1", "s1~", "s1~2", "s1~2.", "s1~.3", "s1~2.3~", "s1.2", "t1_1", "s1 "),
        *("s1~2.3 ", "s1\n", "s1~2.3\n", "s1~2.3~2.4", "s1~02.3~2.4", "s5~2.5", "s5~2.4"),
        *(f"s1~{SHARDS}.3", "s1~-1.3", f"s{MAX_POSITION + 1}", f"s1~2.{MAX_POSITION + 1}"),
        *("s99999999999999999999", "s1~2.99999999999999999999", "s١"),
        "s1" + "".join(f"~{shard}.5" for shard in range(MAX_AHEAD + 1)),
    ],
)
def test_senseless_token_is_refused(text: str) -> None:
    """Neither a shard that does not exist nor a number that the database cannot hold comes in."""
    with pytest.raises(InvalidParam):
        parse_sync_token(text)
    with pytest.raises(InvalidParam):
        parse_history_token(text if text[:1] != "t" else "t1", 1)


def test_longest_token_fits_into_a_request() -> None:
    """A client can always use the token that it got."""
    ahead = tuple((SHARDS - MAX_AHEAD + each, MAX_POSITION) for each in range(MAX_AHEAD))
    token = SyncToken(MAX_POSITION - 1, ahead)

    assert parse_sync_token(token.text) == token
    assert len(token.text) < MAX_URL * 3 // 4


@given(tokens(), tokens(), shards)
def test_token_is_within_another_if_it_is_in_each_shard(
    one: SyncToken, other: SyncToken, shard: int
) -> None:
    """An acknowledgement covers exactly the updates that its client has received."""
    assert one.is_within(one)
    if one.is_within(other):
        assert one.at(shard) <= other.at(shard)
    else:
        everywhere = range(SHARDS)
        assert any(one.at(each) > other.at(each) for each in everywhere)


def test_rooms_and_users_have_the_position_of_their_shard() -> None:
    """History pages from a `/sync` token begin where the room's timeline did."""
    room, user_id = 5 + 3 * SHARDS, "@alice:example.org"
    token = SyncToken(7, tuple(sorted({shard_of(room): 9, shard_of_user(user_id): 11}.items())))

    assert (token.of_room(room), token.of_user(user_id)) == (9, 11)
    assert token.of_room(room + 1) == 7
    assert parse_room_token(token.text, room) == 9
    assert parse_room_token(token.text, room + 1) == 7
    assert parse_room_token("t4_2", room) == (4, 2)
