"""The garbage collection of state nodes: deletes, in small steps, the nodes that no state uses.

Such nodes are left over from states that were computed and not used, and from rooms whose events
were removed. Roots of states are in `events` (`state_before`, `state_after`) and in
`current_states`; nothing else in the database names a state.

A collection begins a new *generation*. It marks all nodes that can be reached from any root, then
reads every node and deletes those that are neither marked nor written since the collection began.
Each step is one transaction that locks the row in which it stores its progress: a collection
continues where it stopped, in any process, and two processes cannot work on it at the same time.

**Why no state loses a node.** Call *live* what can be reached from a root in the database.

1. A transaction that stores a root also writes every node below it that was not live before: a
   change writes the nodes that it makes even where a cache or the table has them (`StateStore`),
   and each user of a resolved state writes its rows again (`ResolvedState`).
2. Writing a node moves it into the present generation, even if it was there already, and waits
   for a transaction that is just deleting it, and then inserts it (`INSERT_STATE_NODE`).
3. A generation begins under a lock that waits for all transactions that are writing nodes, and
   lets others begin only afterwards; PostgreSQL takes the snapshot of a statement after its locks.
   So each writer is either committed before the first mark is made, or writes into the new
   generation.
4. What was live when the generation began is marked: its roots and nodes are there while marks are
   made. Nodes are deleted only later; and a transaction that removes a root ends the collection (a
   trigger in migrations/0015_state_sweep.sql), before or after a step, never during one.
5. So whatever is live at any later time was live when the generation began, and is marked, or was
   written since, by 1, and is of this generation. The collection deletes neither; that a node is
   still of an older generation is checked once more when its row is locked.

Events must be removed only by the room's writer: entries that wait in the log may be based on a
state that only these events have.

Caches do not matter: they only save reading. A deleted node may still be in one, but no code that
stores a state leaves out a row because of that.

Marks are exact, so a single collection removes everything that was garbage when it began.
"""

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.state.tree import child_hashes
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.rooms.event_graph import roots_of_events, roots_of_rooms
from homeserver.storage.rooms.state_nodes import (
    CollectionProgress,
    begin_generation,
    delete_unmarked,
    forget_marks,
    lock_collection,
    mark_nodes,
    save_collection,
    state_nodes,
)

ROOTS = 500  # rows with roots that a step reads
NODES = 2_000  # nodes that a step follows, and nodes among which it looks for garbage
BATCH_SIZE = 500  # nodes that are read at once
MAINTENANCE_HOURS = 3
PAUSE_SECONDS = 0.25  # between steps: so that they take a small part of one core
CHECK_SECONDS = 300.0
log = Logger()


class DamagedState(Exception):
    """A node of a state is missing in the database. Then nothing is deleted."""


class StateNodeCollector:
    """Collects the unused nodes of one database, a step at a time."""

    def __init__(
        self, db: Database, *, roots: int = ROOTS, nodes: int = NODES, together: int = BATCH_SIZE
    ) -> None:
        self.steps = 0
        self.marked = 0
        self.removed = 0
        self._db = db
        self._roots = roots
        self._nodes = nodes
        self._together = together

    async def begin(self, *, only_if_due: bool = False) -> bool:
        """Begin a collection unless one is in progress; returns whether there is one to continue
        now.

        With `only_if_due` none begins less than 20 hours after the last one. None begins either
        while a transaction that writes nodes takes more than two seconds.
        """
        return await self._db.transaction(self._begin, only_if_due)

    async def step(self) -> bool:
        """Do the next small part of a collection; `False` if none is in progress.

        Raises `DamagedState`, and `Unavailable` while the database is unavailable; nothing is
        changed.
        """
        return await self._db.transaction(self._step)

    async def _begin(self, db: Connection, only_if_due: bool) -> bool:
        run = await lock_collection(db)
        if run.phase == "idle" and only_if_due and not run.is_due:
            return False
        return run.phase != "idle" or await begin_generation(db)

    async def _step(self, db: Connection) -> bool:
        run = await lock_collection(db)
        if run.phase == "idle":
            return False
        marked, removed = run.marked, run.removed
        if run.pending:
            await self._follow(db, run)
        elif run.phase == "events":
            await self._mark_events(db, run)
        elif run.phase == "current_states":
            await self._mark_rooms(db, run)
        else:
            await self._delete(db, run)
        await save_collection(db, run)
        self.steps += 1
        self.marked += run.marked - marked
        self.removed += run.removed - removed
        return True

    async def _mark_events(self, db: Connection, run: CollectionProgress) -> None:
        rows = await roots_of_events(db, run.event, self._roots)
        if len(rows) < self._roots:
            run.phase = "current_states"
        if rows:
            run.event = rows[-1][0]
        await self._mark(db, run, {root for _, *roots in rows for root in roots if root})
        await self._follow(db, run)

    async def _mark_rooms(self, db: Connection, run: CollectionProgress) -> None:
        rows = await roots_of_rooms(db, (run.room, run.position), self._roots)
        if len(rows) < self._roots:
            run.phase = "nodes"
        if rows:
            run.room, run.position, _ = rows[-1]
        await self._mark(db, run, {root for _, _, root in rows if root})
        await self._follow(db, run)

    async def _follow(self, db: Connection, run: CollectionProgress) -> None:
        """Mark the nodes below marked nodes, until all are marked or the step is long enough."""
        followed = 0
        while run.pending and followed < self._nodes:
            names = run.pending[-self._together :]
            del run.pending[-self._together :]
            nodes = await state_nodes(db, names)
            if len(nodes) < len(names):
                lost = next(name for name in names if name not in nodes)
                raise DamagedState(f"the state node {lost.hex()} is missing")
            followed += len(names)
            children = {child for node in nodes.values() for child in child_hashes(node)}
            await self._mark(db, run, children)

    async def _mark(
        self, db: Connection, run: CollectionProgress, names: Collection[bytes]
    ) -> None:
        if names:
            fresh = await mark_nodes(db, names)
            run.marked += len(fresh)
            run.pending += fresh

    async def _delete(self, db: Connection, run: CollectionProgress) -> None:
        last, removed = await delete_unmarked(db, run.hash, run.generation, self._nodes)
        run.removed += removed
        if last is None:
            run.phase = "idle"
            await forget_marks(db)
        else:
            run.hash = last


class NightlyCollection:
    """Collects in every maintenance window, for a few hours at most; the next one continues.

    `hour` is when the window begins, in UTC. `start` it, and `stop` it before the database closes.
    """

    def __init__(self, collector: StateNodeCollector, clock: IReactorTime, hour: int) -> None:
        self._collector = collector
        self._clock = clock
        self._hour = hour
        self._nights = PeriodicTask(
            clock, CHECK_SECONDS, self.work, name="the nightly collection of state nodes"
        )
        self._pausing: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to check whether the window is open."""
        self._nights.start()

    def stop(self) -> Deferred[None]:
        """Stop collecting; fires when the step in progress has ended."""
        ended = self._nights.stop()
        if self._pausing is not None:
            self._pausing.callback(None)
        return ended

    async def work(self) -> None:
        """Collect as long as the window is open and there is work; failures are logged."""
        try:
            if self._is_night() and await self._collector.begin(only_if_due=True):
                while self._nights.is_started and self._is_night() and await self._collector.step():
                    await self._pause()
        except Unavailable:
            pass
        except DamagedState as damage:
            log.critical(
                "{damage}: restore a backup. Nothing is removed until then.", damage=damage
            )
        except Exception:
            log.failure("the collection of state nodes failed")

    def _is_night(self) -> bool:
        hour = wall_seconds(self._clock) / 3600 % 24
        return (hour - self._hour) % 24 < MAINTENANCE_HOURS

    async def _pause(self) -> None:
        pausing = self._pausing = Deferred()
        timer = self._clock.callLater(PAUSE_SECONDS, pausing.callback, None)
        await pausing
        self._pausing = None
        if timer.active():
            timer.cancel()
