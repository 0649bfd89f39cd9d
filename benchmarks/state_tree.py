"""State trees: the bytes stored for each state event, and the time of the common operations.

    python -m benchmarks.state_tree

Rooms of 10, 1,000 and 100,000 members, whose users and events have the integers of a server that
has been in use for long. "stored" is what PostgreSQL needs for the nodes of one membership change,
with tuple headers, line pointers and the index entries of the primary key (pages 69 % full, as
random insertion leaves them); "of event" compares it with the JSON of such an event, which is
stored once in any case. Times are means in memory, without the database.
"""

import random
import time
from collections.abc import Callable

from homeserver.protocol.events import build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.state.node_codec import EMPTY, HASH_BYTES, Entries
from homeserver.rooms.state.tree import Changes, all_entries, difference, run, set_entries

MEMBER = 9
OTHER_STATE = 8  # entries besides the members: create, name, power levels …
USERS = 5_000_000
FIRST_EVENT = 3_000_000_000
CHANGES = 400
INDEX_TUPLE = (8 + (1 + HASH_BYTES + 7) // 8 * 8 + 4) / 0.69


def stored_bytes(node: bytes) -> float:
    """The size of a node's row and index entry."""
    header = 1 if len(node) < 127 else 4
    row = 24 + 1 + HASH_BYTES + header + len(node)
    row = (row + 3) // 4 * 4 + 4  # the generation
    return (row + 7) // 8 * 8 + 4 + INDEX_TUPLE


def event_bytes() -> int:
    """The size of the JSON of a member event: a user with a name and a picture changes the name."""
    event = build_event(
        ROOM_VERSIONS["11"],
        room_id="!YHTwpRLzBwxYZGSbkn:example.org",
        type="m.room.member",
        sender="@a.user:example.org",
        content={
            "membership": "join",
            "displayname": "A user with a name",
            "avatar_url": "mxc://example.org/SEsfnsuifSDFSSEFsdfEFsdf",
        },
        state_key="@a.user:example.org",
        prev_events=["$" + "a" * 43],
        auth_events=["$" + letter * 43 for letter in "bcde"],
        depth=123_456,
        origin_server_ts=1_700_000_000_000,
        server_name="example.org",
        key=SigningKey.from_seed("a_1234", bytes(32)),
    )
    return len(event.json)


def room_state(members: int, choice: random.Random) -> Entries:
    """The state of a room that its members have joined one after the other."""
    state = {(kind, 1): FIRST_EVENT + kind for kind in range(1, OTHER_STATE + 1)}
    event = FIRST_EVENT + OTHER_STATE
    for user in choice.sample(range(USERS), members):
        event += choice.randrange(1, 2000)
        state[MEMBER, user] = event
    return state


def milliseconds(operation: Callable[[], object]) -> float:
    """The time that an operation takes once."""
    start = time.perf_counter()
    operation()
    return (time.perf_counter() - start) * 1000


class Tree:
    """A tree that grows by changes, with all its nodes in memory."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.root = EMPTY
        self.stored = 0.0

    def change(self, changes: Changes) -> None:
        """Make a new current state."""
        self.root, new = run(set_entries(self.root, changes), lambda _: self.nodes)
        self.nodes.update(new)
        self.stored += sum(map(stored_bytes, new.values()))


def measure(members: int) -> None:
    """Print one row of the table."""
    choice = random.Random(members)
    state = room_state(members, choice)
    tree = Tree()
    build = milliseconds(lambda: tree.change(state))
    users = [user for kind, user in state if kind == MEMBER]
    first, nodes_before, tree.stored = tree.root, len(tree.nodes), 0.0

    def change_often() -> None:
        for number in range(CHANGES):
            event = FIRST_EVENT + USERS * 1000 + number * 17
            tree.change({(MEMBER, choice.choice(users)): event})

    change = milliseconds(change_often) / CHANGES
    load = milliseconds(lambda: run(all_entries(tree.root), lambda _: tree.nodes))
    before = tree.root
    tree.change({(MEMBER, users[0]): FIRST_EVENT})
    near = milliseconds(lambda: run(difference([before, tree.root]), lambda _: tree.nodes))
    far = milliseconds(lambda: run(difference([first, tree.root]), lambda _: tree.nodes))
    nodes = (len(tree.nodes) - nodes_before) / (CHANGES + 1)
    stored = tree.stored / (CHANGES + 1)
    part = stored / event_bytes()
    print(
        f"| {members:,} | {stored:,.0f} | {part:.2f} | {nodes:.1f} | {build:,.2f} ms |"
        f" {load:,.2f} ms | {change * 1000:,.0f} µs | {near * 1000:,.0f} µs | {far:,.2f} ms |"
    )


if __name__ == "__main__":
    print(f"A member event has {event_bytes()} bytes.\n")
    print(
        "| members | stored bytes | of event | nodes | build | load | change | diff of 1"
        f" | diff of {CHANGES} |"
    )
    print("|---" * 9 + "|")
    for size in (10, 1000, 100_000):
        measure(size)
