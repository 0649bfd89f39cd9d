"""Laws of receipts: what moves together ends where it would one by one, and is seen once."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged

ROOM = 1
USERS, KINDS, THREADS = ("@a:b", "@c:b"), ("m.read", "m.read.private"), (None, "main", "$root")

Steps = Sequence[tuple[Sequence[Receipt], bool]]  # what moves, and whether that is committed


def steps(threads: Sequence[str | None]) -> st.SearchStrategy[Steps]:
    """Some receipts of these threads, of events whose order is mostly known."""
    receipts = st.builds(
        lambda user, kind, thread, event, is_known: Receipt(
            user, kind, thread, f"${event}", event if is_known else None, event
        ),
        st.sampled_from(USERS),
        st.sampled_from(KINDS),
        st.sampled_from(threads),
        st.integers(1, 5),
        st.sampled_from((True, True, True, False)),
    )
    some = st.lists(receipts, min_size=1, max_size=6)
    return st.lists(st.tuples(some, st.booleans()), max_size=8)


class Room:
    room_nid = ROOM


class Server:
    """A log, names and a database without anything in it. Entries wait until they are committed."""

    def __init__(self) -> None:
        self.position = 0
        self.waiting: list[tuple[ReceiptsChanged, Deferred[None]]] = []
        fake: Any = self
        self.receipts = Receipts(fake, fake, fake)

    def check_open(self) -> None: ...

    def next_position(self) -> int:
        self.position += 1
        return self.position

    def append(self, entry: ReceiptsChanged, rows: Collection[object]) -> Deferred[None]:
        assert len(rows) == len(entry.receipts)
        done: Deferred[None] = Deferred()
        self.waiting.append((entry, done))
        return done

    async def nids(self, names: Collection[str]) -> dict[str, int]:
        return {name: USERS.index(name) for name in names}

    async def names(self, nids: Collection[int]) -> dict[int, str]:
        return {}

    async def run(self, *_: object) -> list[object]:
        return []

    def move(self, receipts: Sequence[Receipt]) -> Deferred[Any]:
        room: Any = Room()
        return Deferred.fromCoroutine(self.receipts.move(room, receipts))

    def commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.receipts.apply([entry for entry, _ in waiting])
        for _, done in waiting:
            done.callback(None)

    def seen_by(self, user_id: str, since: int | None) -> list[tuple[str, str, str, Any]]:
        """What a user sees in a room: event, type, reader, and what is said of it."""
        room: Any = Room()
        seen: list[Any] = []
        running = Deferred.fromCoroutine(self.receipts.events_since(room, user_id, since))
        running.addCallback(seen.append)
        content = {} if seen[0] is None else msgspec.json.decode(seen[0])["content"]
        return sorted(
            (event, kind, reader, shown)
            for event, kinds in content.items()
            for kind, readers in kinds.items()
            for reader, shown in readers.items()
        )

    def latest_of(self, user_id: str, since: int | None) -> dict[tuple[str, str], tuple[str, Any]]:
        """The same by type and reader, each of whom has one receipt."""
        found = self.seen_by(user_id, since)
        return {(kind, reader): (event, shown) for event, kind, reader, shown in found}


@given(steps(THREADS))
def test_receipts_that_move_together_end_where_they_would_one_by_one(given_steps: Steps) -> None:
    """A burst changes the number of commits, and nothing that a user sees in the end."""
    together, one_by_one = Server(), Server()
    moves = []
    for receipts, is_committed in given_steps:
        moves.append(together.move(receipts))
        for receipt in receipts:
            one_by_one.move([receipt])
            one_by_one.commit()
        if is_committed:
            together.commit()
    together.commit()

    assert all(move.called and not move.result for move in moves)
    for user in USERS:
        assert together.seen_by(user, None) == one_by_one.seen_by(user, None)


@given(steps([None]))
def test_each_change_is_seen_above_the_token_before_it(given_steps: Steps) -> None:
    """Who asks again and again sees what one sees who asks once."""
    server = Server()
    token = server.position
    seen: dict[str, dict[tuple[str, str], tuple[str, Any]]] = {user: {} for user in USERS}
    for receipts, is_committed in [*given_steps, ([], True)]:
        if receipts:
            server.move(receipts)
        if is_committed:
            server.commit()
            for user in USERS:
                seen[user] |= server.latest_of(user, token)
            token = server.position

    for user in USERS:
        assert seen[user] == server.latest_of(user, None)
        assert not server.seen_by(user, token)
