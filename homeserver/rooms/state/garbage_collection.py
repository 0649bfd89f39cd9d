"""The mark and sweep of state nodes: removes, in small steps, what belongs to no state any more.

Nodes are left over from states that were computed and not used, and from rooms whose events were
removed. Roots of states stand in `events` (`state_before`, `state_after`) and in `current_states`;
nothing else in the database names a state.

A sweep begins a new *generation*. It marks all nodes that can be reached from any root, then looks
at every node and deletes those that are neither marked nor written since the sweep began. Each step
is one transaction that holds the row in which it notes how far it has come: a sweep goes on where
it stopped, in any process, and two processes cannot work on it at the same time.

**Why no state loses a node.** Call *live* what can be reached from a root in the database.

1. A transaction that stores a root also writes every node below it that was not live before: a
   change writes the nodes that it makes even where a cache or the table has them (`States`), and
   whoever uses a resolved state writes its rows again (`ResolvedState`).
2. Writing a node takes it into the present generation, even where it was there already, and waits
   for whoever is just deleting it, and then inserts it (`INSERT_STATE_NODE`).
3. A generation begins under a lock that waits for all who are writing nodes, and lets others begin
   only afterwards; PostgreSQL takes the snapshot of a statement after its locks. So each writer is
   either committed before the first mark is made, or writes into the new generation.
4. What was live when the generation began is marked: its roots and nodes are there while marks are
   made. Nodes are deleted only later; and whoever takes a root away ends the sweep (a trigger in
   migrations/0015_state_sweep.sql), before or after a step, never during one.
5. So whatever is live at any later time was live when the generation began, and is marked, or was
   written since, by 1, and is of this generation. The sweep deletes neither; that a node is still
   of an older generation is checked once more when its row is locked.

Whoever removes events must do it by the room's writer: what waits in the log may build on a state
that only they have.

What memory believes does not matter: caches only save reading. A node that was deleted may still be
in one, but nobody who stores a state leaves out a row because of that.

Marks are exact, so a single sweep removes everything that was garbage when it began.
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
PAUSE_SECONDS = 0.25  # between steps: they take a small part of one core
CHECK_SECONDS = 300.0
log = Logger()


class DamagedState(Exception):
    """A node of a state is not in the database. Nothing is deleted then."""


class StateNodeCollector:
    """Sweeps the nodes of one database, a step at a time."""

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
        """Begin a sweep unless one is under way; whether there is one to go on with now.

        `only_if_due` begins none where the last one began less than 20 hours ago. None is begun
        either while somebody who writes nodes takes more than two seconds.
        """
        return await self._db.transaction(self._begin, only_if_due)

    async def step(self) -> bool:
        """Do the next small part of a sweep; `False` where there is none to go on with.

        Raises `DamagedState`, and `Unavailable` while the database is away; nothing is changed.
        """
        return await self._db.transaction(self._step)

    async def _begin(self, db: Connection, only_if_due: bool) -> bool:
        sweep = await lock_collection(db)
        if sweep.phase == "idle" and only_if_due and not sweep.is_due:
            return False
        return sweep.phase != "idle" or await begin_generation(db)

    async def _step(self, db: Connection) -> bool:
        sweep = await lock_collection(db)
        if sweep.phase == "idle":
            return False
        marked, removed = sweep.marked, sweep.removed
        if sweep.pending:
            await self._follow(db, sweep)
        elif sweep.phase == "events":
            await self._mark_events(db, sweep)
        elif sweep.phase == "current_states":
            await self._mark_rooms(db, sweep)
        else:
            await self._delete(db, sweep)
        await save_collection(db, sweep)
        self.steps += 1
        self.marked += sweep.marked - marked
        self.removed += sweep.removed - removed
        return True

    async def _mark_events(self, db: Connection, sweep: CollectionProgress) -> None:
        rows = await roots_of_events(db, sweep.event, self._roots)
        if len(rows) < self._roots:
            sweep.phase = "current_states"
        if rows:
            sweep.event = rows[-1][0]
        await self._mark(db, sweep, {root for _, *roots in rows for root in roots if root})
        await self._follow(db, sweep)

    async def _mark_rooms(self, db: Connection, sweep: CollectionProgress) -> None:
        rows = await roots_of_rooms(db, (sweep.room, sweep.position), self._roots)
        if len(rows) < self._roots:
            sweep.phase = "nodes"
        if rows:
            sweep.room, sweep.position, _ = rows[-1]
        await self._mark(db, sweep, {root for _, _, root in rows if root})
        await self._follow(db, sweep)

    async def _follow(self, db: Connection, sweep: CollectionProgress) -> None:
        """Mark what is below marked nodes, until all is marked or the step is long enough."""
        followed = 0
        while sweep.pending and followed < self._nodes:
            names = sweep.pending[-self._together :]
            del sweep.pending[-self._together :]
            nodes = await state_nodes(db, names)
            if len(nodes) < len(names):
                lost = next(name for name in names if name not in nodes)
                raise DamagedState(f"the state node {lost.hex()} is missing")
            followed += len(names)
            children = {child for node in nodes.values() for child in child_hashes(node)}
            await self._mark(db, sweep, children)

    async def _mark(
        self, db: Connection, sweep: CollectionProgress, names: Collection[bytes]
    ) -> None:
        if names:
            fresh = await mark_nodes(db, names)
            sweep.marked += len(fresh)
            sweep.pending += fresh

    async def _delete(self, db: Connection, sweep: CollectionProgress) -> None:
        last, removed = await delete_unmarked(db, sweep.hash, sweep.generation, self._nodes)
        sweep.removed += removed
        if last is None:
            sweep.phase = "idle"
            await forget_marks(db)
        else:
            sweep.hash = last


class NightlyCollection:
    """Sweeps every night, for a few hours at most; what is left is for the next night.

    `hour` is when the night begins, in UTC. `start` it, and `stop` it before the database closes.
    """

    def __init__(self, sweep: StateNodeCollector, clock: IReactorTime, hour: int) -> None:
        self._sweep = sweep
        self._clock = clock
        self._hour = hour
        self._nights = PeriodicTask(
            clock, CHECK_SECONDS, self.work, name="the nightly sweep of state nodes"
        )
        self._pausing: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to look whether it is night."""
        self._nights.start()

    def stop(self) -> Deferred[None]:
        """Sweep no more; fires when the step that is under way has ended."""
        ended = self._nights.stop()
        if self._pausing is not None:
            self._pausing.callback(None)
        return ended

    async def work(self) -> None:
        """Sweep as long as it is night and there is something to sweep; failures are told."""
        try:
            if self._is_night() and await self._sweep.begin(only_if_due=True):
                while self._nights.is_started and self._is_night() and await self._sweep.step():
                    await self._pause()
        except Unavailable:
            pass
        except DamagedState as damage:
            log.critical(
                "{damage}: restore a backup. Nothing is removed until then.", damage=damage
            )
        except Exception:
            log.failure("the sweep of state nodes failed")

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
