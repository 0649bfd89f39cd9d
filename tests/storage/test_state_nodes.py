"""State nodes in the database: written in batches, found by hash, shared by all rooms."""

import pytest

from homeserver.rooms.state.node_codec import EMPTY, Entries, node_hash
from homeserver.rooms.state.store import StateNodesNotInMemory, StateStore
from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.state_nodes import INSERT_STATE_NODE, state_nodes
from tests.support.postgres import DatabaseTestCase

MEMBER = 9


def members(count: int) -> Entries:
    return {(MEMBER, user): 3_000_000_000 + user * 17 for user in range(1, count + 1)}


async def write(db: Connection, rows: list[Row]) -> None:
    batch = Batch()
    for row in rows:
        batch.add(row)
    await batch.write(db)


class StateNodesTests(DatabaseTestCase):
    async def test_nodes_are_found_by_hash(self) -> None:
        """A node comes back byte for byte, whatever bytes it is made of."""
        nodes = {node_hash(node): node for node in (b"\x00", bytes(range(256)) * 4, b'{"\\x00,}')}
        rows = [INSERT_STATE_NODE.row(name, node) for name, node in nodes.items()]
        await self.db.run(write, rows)

        found = await self.db.run(state_nodes, [*nodes, node_hash(b"never stored")])

        assert found == nodes

    async def test_same_node_may_be_written_again(self) -> None:
        """A batch whose outcome is unknown is repeated, and two rooms may make the same node."""
        rows = [INSERT_STATE_NODE.row(node_hash(b"node"), b"node")] * 2

        await self.db.run(write, rows)
        await self.db.run(write, rows)

        found = await self.db.run(state_nodes, [node_hash(b"node")])
        assert found == {node_hash(b"node"): b"node"}

    async def test_state_survives_a_restart(self) -> None:
        """Another process can read, compare and continue a written state."""
        states = StateStore(self.db, 10_000)
        before, rows = states.apply(EMPTY, members(2000))
        after, more = states.apply(before, {(MEMBER, 5): 3_100_000_000, (MEMBER, 6): None})
        await self.db.run(write, rows + more)
        restarted = StateStore(self.db, 10_000)

        loaded = await restarted.load(before)
        changed = await restarted.diff(before, after)

        assert loaded == members(2000)
        assert changed == {
            (MEMBER, 5): (3_000_000_085, 3_100_000_000),
            (MEMBER, 6): (3_000_000_102, None),
        }

    async def test_state_is_loaded_a_level_at_a_time(self) -> None:
        """The state of a large room costs a few round trips, not one for each node."""
        root, rows = StateStore(self.db, 10_000).apply(EMPTY, members(5000))
        await self.db.run(write, rows)
        runs = self.db.runs

        await StateStore(self.db, 10_000).load(root)

        assert self.db.runs - runs <= 4

    async def test_state_that_is_not_stored_is_an_error(self) -> None:
        """A damaged database must not look like a room without members."""
        root, _ = StateStore(self.db, 10_000).apply(EMPTY, members(3))

        with pytest.raises(StateNodesNotInMemory):
            await StateStore(self.db, 10_000).load(root)
