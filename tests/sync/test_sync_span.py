"""Spans of updates: no token promises what its client did not get, or takes back what it got."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from homeserver.streams.shards import SHARDS, shard_of, shard_of_user
from homeserver.streams.sync_tokens import MAX_AHEAD, SyncToken
from homeserver.sync.sync_span import SyncSpan

PEOPLE = [f"@user{number}:example.org" for number in range(5)]
rooms = st.integers(1, 3 * SHARDS)
positions = st.integers(1, 30)


@dataclass(frozen=True)
class Published:
    """How far some owners, each of every so many shards, have published."""

    owners: tuple[int, ...]
    even = None

    @property
    def base(self) -> int:
        return min(self.owners)

    def at(self, shard: int) -> int:
        return self.owners[shard % len(self.owners)]


published = st.lists(positions, min_size=2, max_size=4).map(lambda some: Published(tuple(some)))


@st.composite
def tokens(draw: st.DrawFn) -> SyncToken | None:
    if draw(st.booleans()):
        return None
    base = draw(positions)
    ahead = draw(st.dictionaries(st.integers(0, 9), st.integers(base + 1, 40), max_size=5))
    return SyncToken(base, tuple(sorted(ahead.items())))


@given(tokens(), published, st.lists(rooms, max_size=6), st.lists(st.sampled_from(PEOPLE)))
def test_token_says_what_the_client_has(
    since: SyncToken | None, now: Published, some_rooms: list[int], users: list[str]
) -> None:
    """It covers what the update has, and of all other shards no more than is published of each."""
    span = SyncSpan(since, now)
    ranges = {room: span.of_room(room) for room in some_rooms}
    for room in some_rooms:
        span.has_room(room, ranges[room][1])
    for user_id in users:
        span.has_user(user_id)

    token = span.token

    concerned = {*map(shard_of, some_rooms), *map(shard_of_user, users)}
    for room, (begin, end) in ranges.items():
        assert begin == (None if since is None else since.of_room(room))
        assert token.of_room(room) == end
    for shard in range(SHARDS):
        had = 0 if since is None else since.at(shard)
        assert token.at(shard) >= had
        assert token.at(shard) <= max(had, now.at(shard), 0 if since is None else since.base)
        if shard in concerned:
            assert token.at(shard) == max(had, now.at(shard), token.base)
    assert {shard for shard, _ in token.ahead} <= concerned | {
        shard for shard, _ in (() if since is None else since.ahead)
    }


@given(tokens(), published, st.lists(rooms, min_size=1, max_size=6), positions)
def test_token_of_an_update_that_was_cut_off(
    since: SyncToken | None, now: Published, some_rooms: list[int], position: int
) -> None:
    """Whatever is beyond the position that was reached comes with the next update."""
    span = SyncSpan(since, now)
    for room in some_rooms:
        span.has_room(room, span.of_room(room)[1])

    token = span.token_upto(position)

    before = SyncToken(0) if since is None else since
    for shard in range(SHARDS):
        assert token.at(shard) <= max(before.at(shard), position, 0)
    for room in some_rooms:
        reached = min(span.of_room(room)[1], position)
        assert token.of_room(room) == max(before.of_room(room), reached, token.base)


def test_span_of_one_owner_is_one_range() -> None:
    """Nothing need be named, whatever an update has."""
    span = SyncSpan(SyncToken(5), SyncToken(9))
    span.has_room(7, 9)
    span.has_user("@alice:example.org")
    span.has_users([("@bob:example.org", 8)])

    assert span.of_room(7) == (5, 9)
    assert span.since_of_user("@alice:example.org") == 5
    assert span.token == SyncToken(9)
    assert span.token_upto(6) == SyncToken(6)


def test_token_of_several_owners_can_be_used_with_one() -> None:
    """Who goes back to one process loses nothing: it begins above all that was published."""
    span = SyncSpan(SyncToken(5, ((1, 8),)), SyncToken(9))

    assert span.of_room(1) == (8, 9)
    assert span.of_room(2) == (5, 9)
    assert span.token == SyncToken(9)


def test_token_has_a_bounded_length() -> None:
    """What does not fit is in one of the next updates: until then it counts as not published."""
    span = SyncSpan(SyncToken(5), Published((6, 9)))
    odd = [2 * number + 1 for number in range(MAX_AHEAD + 5)]

    for room in odd:
        span.has_room(room, span.of_room(room)[1])

    assert len(span.token.ahead) == MAX_AHEAD
    assert [span.token.of_room(room) for room in odd] == [9] * MAX_AHEAD + [6] * 5
    assert span.of_room(odd[-1]) == (5, 6)


def test_quiet_room_of_an_initial_sync_is_not_named() -> None:
    """The token of a user in a thousand rooms names those in which something happened just now."""
    span = SyncSpan(None, Published((6, 9)))

    span.has_room(1, 4)
    span.has_room(3, 8)
    span.has_users([("@user0:example.org", 2)])

    assert span.token == SyncToken(6, ((3, 9),))
