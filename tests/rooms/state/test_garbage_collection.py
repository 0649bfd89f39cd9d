"""Garbage collection of state nodes: unused nodes are removed, and no state ever loses a node."""

import random
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from homeserver.rooms.state.garbage_collection import (
    DamagedState,
    NightlyCollection,
    StateNodeCollector,
)
from homeserver.rooms.state.node_codec import EMPTY, Entries
from homeserver.rooms.state.store import StateStore
from homeserver.rooms.state.tree import Changes
from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import Connection
from homeserver.storage.rooms import state_nodes
from homeserver.storage.rooms.events import INSERT_CURRENT_STATE, INSERT_EVENT, PLACE_EVENT
from tests.support.postgres import DatabaseTestCase

ROOM = 1
KEYS = 90  # entries a state can have: enough for two levels of nodes
VALUES = 3  # so few that the same nodes are made again and again
WORDS = ("send", "resolve", "compute", "use", "use", "purge", *["step"] * 6)
REMEMBERED = 2  # computed states: so few that the same ones come and go


def some_changes(choice: random.Random) -> Changes:
    size = choice.choice([1, 1, 1, 40])
    return {
        (1, choice.randrange(1, KEYS)): choice.choice([None, *range(1, VALUES + 1)])
        for _ in range(size)
    }


def after(state: Entries, changes: Changes) -> Entries:
    both = {**state, **changes}
    return {key: value for key, value in both.items() if value is not None}


async def write(db: Connection, rows: Sequence[Row]) -> None:
    batch = Batch()
    for row in rows:
        batch.add(row)
    await batch.write(db)


def event_row(number: int, before: bytes | None, root: bytes | None) -> Row:
    values: dict[int, Any] = {0: number, 1: ROOM, 2: number, 3: 1, 4: 1, 5: 1}
    values |= {7: f"${number}", 8: b"{}", 9: before, 10: root}
    return INSERT_EVENT.row(*[values.get(place) for place in range(len(INSERT_EVENT.columns))])


class SyncServer:
    """A room whose states are known, in a database whose nodes are swept meanwhile."""

    def __init__(self, case: "GarbageCollectionTestCase", seed: int) -> None:
        self.choice = random.Random(seed)
        self.db = case.db
        self.sweep = case.sweep
        self.states = StateStore(case.db, 1_000)
        self.number = 0
        self.stored: dict[tuple[str, int], tuple[bytes, Entries]] = {}
        self.computed: list[tuple[tuple[str, int], bytes, Sequence[Row], Entries]] = []

    async def act(self) -> None:
        """Do anything that can happen."""
        await getattr(self, self.choice.choice(WORDS))()

    async def send(self) -> None:
        """Store an event that changes a state that there is."""
        base, state, _ = self._any()
        changes = some_changes(self.choice)
        root, rows = await self.states.change(base, changes)
        await self._store("event", base, root, rows, after(state, changes))

    async def resolve(self) -> None:
        """Store a state that no event has."""
        base, state, _ = self._any()
        changes = some_changes(self.choice)
        root, rows = await self.states.change(base, changes)
        await self._store("room", base, root, rows, after(state, changes))

    async def compute(self) -> None:
        """Compute a state, and record it with its rows."""
        base, state, where = self._any()
        if where is None:
            return
        changes = some_changes(self.choice)
        root, rows = await self.states.change(base, changes)
        self.computed = self.computed[1 - REMEMBERED :]
        self.computed.append((where, root, rows, after(state, changes)))

    async def use(self) -> None:
        """Store a state that was computed before, if what it was made of is still there."""
        if not self.computed:
            return
        where, root, rows, state = self.choice.choice(self.computed)
        if where in self.stored:
            await self._store("event", self.stored[where][0], root, rows, state)

    async def step(self) -> None:
        """Do one step of the collection; or start over, sometimes after a restart."""
        if not await self.sweep.step():
            await self.sweep.begin()
        if self.choice.random() < 0.1:
            self.states = StateStore(self.db, 1_000)

    async def purge(self) -> None:
        """Delete the events of one moment."""
        bases = {where for where, *_ in self.computed}
        others = [
            (kind, number)
            for kind, number in self.stored
            if number > 0 and bases.isdisjoint({(kind, number), (kind, -number)})
        ]
        if others:
            kind, number = self.choice.choice(others)
            del self.stored[kind, number]
            self.stored.pop((kind, -number), None)
            table, column = {"event": ("events", "event"), "room": ("current_states", "position")}[
                kind
            ]
            await self.db.run(execute, f"DELETE FROM {table} WHERE {column} = {number}")

    async def check(self) -> None:
        """Load every state of every event, as after a restart."""
        fresh = StateStore(self.db, 1_000)
        for root, state in self.stored.values():
            assert await fresh.load(root) == state

    def _any(self) -> tuple[bytes, Entries, tuple[str, int] | None]:
        where = self.choice.choice([*self.stored, None])
        return (EMPTY, {}, None) if where is None else (*self.stored[where], where)

    async def _store(
        self, kind: str, base: bytes, root: bytes, rows: Sequence[Row], state: Entries
    ) -> None:
        self.number += 1
        if kind == "event":
            row = event_row(self.number, base, root)
        else:
            row = INSERT_CURRENT_STATE.row(ROOM, self.number, root, None)
        await self.db.run(write, [*rows, row])
        self.stored[kind, self.number] = root, state
        if kind == "event" and base:
            # The state before it is kept by this event, too.
            found = next(state for other, state in self.stored.values() if other == base)
            self.stored["event", -self.number] = base, found


async def execute(db: Connection, sql: str) -> None:
    await db.execute(sql.encode())


async def count_nodes(db: Connection) -> int:
    cursor = await db.execute("SELECT count(*) FROM state_nodes")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


class GarbageCollectionTestCase(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.states = StateStore(self.db, 1_000)
        self.sweep = StateNodeCollector(self.db, roots=2, nodes=5, together=3)

    async def collect_all(self) -> None:
        """A complete collection from its beginning."""
        while await self.sweep.step():
            pass
        assert await self.sweep.begin()
        while await self.sweep.step():
            pass

    async def nodes(self) -> int:
        return await self.db.run(count_nodes)

    async def garbage(self, size: int = 50) -> tuple[bytes, list[Row]]:
        """A state that is stored and that nothing refers to: its root and rows."""
        root, rows = self.states.apply(EMPTY, {(1, key): 1 for key in range(1, size + 1)})
        await self.db.run(write, rows)
        return root, rows


class GarbageCollectionTests(GarbageCollectionTestCase):
    async def test_no_state_is_lost_whatever_happens_meanwhile(self) -> None:
        """Rooms are written, resolved and purged, and the server restarts, during a collection."""
        self.sweep = StateNodeCollector(self.db, roots=10, nodes=20, together=10)
        for seed in range(8):
            await self.db.run(execute, "TRUNCATE events, current_states, state_nodes")
            server = SyncServer(self, seed)
            for _ in range(80):
                await server.act()

            await server.check()

            await self.collect_all()
            await server.check()
            live: set[bytes] = set()
            fresh = StateStore(self.db, 1_000)
            for root, _ in server.stored.values():
                await fresh.load(root)
            live.update(fresh._cache._recent)
            assert await self.nodes() == len(live), f"garbage is left, seed {seed}"

    async def test_garbage_is_removed_and_what_is_used_is_kept(self) -> None:
        """The database does not grow by nodes that no state needs."""
        state = {(1, key): key for key in range(1, 60)}
        root, rows = self.states.apply(EMPTY, state)
        await self.db.run(write, [*rows, event_row(1, EMPTY, root)])
        used = await self.nodes()
        await self.garbage()

        await self.collect_all()

        assert await self.nodes() == used == self.sweep.marked
        assert self.sweep.removed > 0
        assert await StateStore(self.db, 100).load(root) == state

    async def test_steps_are_small_and_continue_after_a_restart(self) -> None:
        """A large room is collected over many nights, and a restart does not start over."""
        root, rows = self.states.apply(EMPTY, {(1, key): key for key in range(1, 3_000)})
        await self.db.run(write, [*rows, event_row(1, EMPTY, root)])
        await self.garbage()
        assert await self.sweep.begin()
        limit, steps, marked = 5 * 16, 0, 0

        while True:
            fresh = StateNodeCollector(self.db, roots=2, nodes=5, together=3)
            if not await fresh.step():
                break
            steps += 1
            marked += fresh.marked
            assert fresh.marked <= limit
            assert fresh.removed <= 5

        assert marked == len(rows) == await self.nodes()
        assert steps > marked / limit

    async def test_purge_ends_the_collection_that_may_not_have_seen_it(self) -> None:
        """Nodes of the purged event alone may be used by another event meanwhile."""
        root, rows = self.states.apply(EMPTY, {(1, 1): 1})
        await self.db.run(write, [*rows, event_row(1, EMPTY, root), event_row(2, root, None)])
        for statement in (
            "DELETE FROM events WHERE event = 2",
            "UPDATE events SET state_before = 'x' WHERE event = 1",
            "DELETE FROM current_states",
        ):
            assert await self.sweep.begin()
            await self.db.run(execute, statement)

            assert not await self.sweep.step()

    async def test_outlier_that_gets_a_place_ends_no_collection(self) -> None:
        """On a busy server outliers get places all the time, and no root is lost by it."""
        root, rows = self.states.apply(EMPTY, {(1, 1): 1})
        await self.db.run(write, [*rows, event_row(1, None, None)])
        assert await self.sweep.begin()

        placed = PLACE_EVENT.row(1, 1, 1, root, root, None, None, None, None)
        await self.db.run(write, [placed])

        assert await self.sweep.step()

    async def test_damaged_state_stops_the_collection(self) -> None:
        """If a state is damaged already, nothing more is deleted."""
        root, _ = self.states.apply(EMPTY, {(1, 1): 1})
        await self.db.run(write, [event_row(1, EMPTY, root)])
        await self.garbage()
        before = await self.nodes()

        with pytest.raises(DamagedState, match=root.hex()):
            await self.collect_all()

        assert await self.nodes() == before

    async def test_every_column_that_may_name_a_state_is_known(self) -> None:
        """A developer who adds a table with roots must register it with the collection."""
        with psycopg.connect(self.dsn) as connection:
            columns = connection.execute(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND data_type = 'bytea'"
                "   AND column_name ~ 'state|root|node'"
            ).fetchall()

        assert set(columns) == {
            ("events", "state_before"),
            ("events", "state_after"),
            ("current_states", "root"),
            ("state_nodes", "node"),
        }


class RaceTests(GarbageCollectionTestCase):
    """Actions of other connections between two statements of a collection."""

    async def pending(self, deferred: "Deferred[Any]") -> None:
        """See that something waits."""
        await deferLater(reactor, 0.1)
        assert not deferred.called

    async def test_generation_waits_for_writers(self) -> None:
        """A writer that saw the old generation is done before the first mark is made."""
        root, rows = await self.garbage()
        async with self.db.connection() as writer, writer.transaction():
            await write(writer, [*rows, event_row(1, EMPTY, root)])
            begun = Deferred.fromCoroutine(self.sweep.begin())
            await self.pending(begun)

        assert await begun
        while await self.sweep.step():
            pass
        assert len(await StateStore(self.db, 100).load(root)) == 50

    async def test_writer_that_takes_too_long_keeps_a_generation_from_beginning(self) -> None:
        """Writers do not wait behind a collection that waits itself."""
        self.patch(state_nodes, "LOCK_MS", 20)
        _, rows = await self.garbage()
        async with self.db.connection() as writer, writer.transaction():
            await write(writer, rows)

            assert not await self.sweep.begin()

        assert await self.sweep.begin()

    async def test_writer_that_waits_for_a_generation_writes_into_it(self) -> None:
        """Its statement began in the old one, but nothing that it wrote counts as old."""
        root, rows = await self.garbage()
        for number in range(1, 8):  # until its statement is prepared, and its plan kept
            await self.db.write_batch(batch_of([*rows, event_row(number, EMPTY, EMPTY)]))
        async with self.db.connection() as beginner, beginner.transaction():
            await state_nodes.lock_collection(beginner)
            assert await state_nodes.begin_generation(beginner)
            row = event_row(9, EMPTY, root)
            written = Deferred.fromCoroutine(self.db.write_batch(batch_of([*rows, row])))
            await self.pending(written)

        await written
        with psycopg.connect(self.dsn) as connection:
            found = connection.execute("SELECT DISTINCT generation FROM state_nodes").fetchall()
        assert found == [(1,)]

    async def test_node_that_is_just_being_deleted_is_written_again(self) -> None:
        """A state returns in the moment in which its nodes are being deleted."""
        root, rows = await self.garbage()
        async with self.db.connection() as sweeper, sweeper.transaction():
            _, removed = await state_nodes.delete_unmarked(sweeper, b"", 1, 100)
            assert removed == len(rows)
            row = event_row(1, EMPTY, root)
            written = Deferred.fromCoroutine(self.db.write_batch(batch_of([*rows, row])))
            await self.pending(written)

        await written
        assert len(await StateStore(self.db, 100).load(root)) == 50

    async def test_node_that_is_just_being_used_again_is_not_deleted(self) -> None:
        """A state returns a moment before its nodes would have been deleted."""
        root, rows = await self.garbage()
        await self.sweep.begin()
        async with self.db.connection() as writer, writer.transaction():
            await write(writer, [*rows, event_row(1, EMPTY, root)])
            deleted = Deferred.fromCoroutine(
                self.db.transaction(state_nodes.delete_unmarked, b"", 1, 100)
            )
            await self.pending(deleted)

        assert (await deleted)[1] == 0
        assert len(await StateStore(self.db, 100).load(root)) == 50


def batch_of(rows: Sequence[Row]) -> Batch:
    batch = Batch()
    for row in rows:
        batch.add(row)
    return batch


class FakeCollection:
    """A collection of a given number of steps."""

    def __init__(self, steps: int, failure: Exception | None = None) -> None:
        self.left = steps
        self.begun = 0
        self.failure = failure

    async def begin(self, *, only_if_due: bool) -> bool:
        self.begun += 1
        return self.left > 0

    async def step(self) -> bool:
        if self.failure is not None:
            raise self.failure
        self.left -= 1
        return self.left > 0


HOUR = 3600.0


def nightly(sweep: FakeCollection, hour_of_day: float) -> tuple[Clock, NightlyCollection]:
    clock = Clock()
    clock.advance(hour_of_day * HOUR)
    nights = NightlyCollection(sweep, clock, 23)  # type: ignore[arg-type]
    nights.start()
    return clock, nights


def advance(clock: Clock, seconds: float) -> None:
    clock.pump([0.25] * int(seconds * 4))


def test_collection_waits_for_the_night() -> None:
    """By day the database belongs to users."""
    sweep = FakeCollection(3)
    clock, nights = nightly(sweep, 21.95)

    clock.advance(300)
    assert sweep.begun == 0
    clock.advance(HOUR)
    advance(clock, 2)
    nights.stop()

    assert (sweep.begun, sweep.left) == (1, 0)


def test_collection_ends_with_the_night_and_continues_in_the_next() -> None:
    """A night has an end, also one that began before midnight."""
    sweep = FakeCollection(1_000_000)
    clock, nights = nightly(sweep, 24 + 1.9)

    advance(clock, 600)
    at_dawn = sweep.left
    clock.advance(12 * HOUR)
    advance(clock, 600)
    assert sweep.left == at_dawn
    clock.advance(9 * HOUR)
    advance(clock, 600)
    nights.stop()

    assert at_dawn < 1_000_000
    assert sweep.left < at_dawn


def test_collection_stops_with_the_server() -> None:
    """No query reaches a database that is being closed."""
    sweep = FakeCollection(1_000_000)
    clock, nights = nightly(sweep, 23.5)
    advance(clock, 600)

    nights.stop()
    left = sweep.left
    advance(clock, 600)

    assert sweep.left == left
    assert clock.getDelayedCalls() == []
