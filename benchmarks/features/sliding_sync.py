"""Simplified sliding sync, as matrix-rust-sdk uses it: a large account, waiting clients, a group.

The account is in 2,000 rooms, of which a list shows the newest 20. The group is that of
`delivery.py`, so that both syncs can be compared on the same server.
"""

import itertools
import json
import re
import statistics
import time
from typing import Any
from urllib.parse import quote

from benchmarks.delivery import POLL_MS, Group
from benchmarks.footprint import ROOM_SIZE, WARM, Crowd
from benchmarks.load.figures import Figure
from benchmarks.load.loop import LoadFailed, Script, fetch_all, request
from benchmarks.load.population import CONNECTIONS, Account, Population
from benchmarks.load.processes import resident_bytes

PATH = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
ROOMS = 2_000
OWNERS = 20
CLIENTS = 1_000
MEMBERS = 100
REPEATS = 9
POS = re.compile(rb'"pos":"([^"]+)"')
STATE = [
    ["m.room.name", ""],
    ["m.room.encryption", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
    ["m.room.topic", ""],
    ["m.room.avatar", ""],
    ["m.room.canonical_alias", ""],
    ["m.room.power_levels", ""],
    ["m.room.join_rules", ""],
    ["m.room.tombstone", ""],
    ["m.room.create", ""],
    ["m.room.history_visibility", ""],
    ["m.space.parent", "*"],
    ["m.space.child", "*"],
]
EXTENSIONS = {name: {"enabled": True} for name in ("account_data", "receipts", "typing")}


def measure(population: Population, size: float, seconds: float) -> list[Figure]:
    """The rows of the table."""
    group = _group(population, population.accounts(MEMBERS), seconds)
    return [*_large_account(population, int(ROOMS * size)), *group, _waiting(population, size)]


def body_of(end: int, conn_id: str) -> bytes:
    """The body of a request for the rooms up to an index."""
    rooms: dict[str, Any] = {
        "ranges": [[0, end]],
        "timeline_limit": 1,
        "required_state": STATE,
        "filters": {"not_room_types": ["m.space"]},
    }
    body = {"conn_id": conn_id, "lists": {"all_rooms": rooms}, "extensions": EXTENSIONS}
    return json.dumps(body).encode()


CROWD_BODY = body_of(19, "crowd")


def sliding_poll(account: Account, body: bytes, timeout_ms: int) -> bytes:
    """The request of a sliding sync from where the account is."""
    pos = f"&pos={quote(account.since)}" if account.since else ""
    return request("POST", f"{PATH}?timeout={timeout_ms}{pos}", account.token, body)


def take_pos(account: Account, body: bytes) -> None:
    """Continue from the end of a response."""
    found = POS.search(body)
    if found is None:
        raise LoadFailed(f"no pos: {body[:200]!r}")
    account.since = found[1].decode()


def _large_account(population: Population, rooms: int) -> list[Figure]:
    owners = population.accounts(OWNERS)
    owner_of = list(itertools.islice(itertools.cycle(owners), rooms))
    created = population.rooms(owner_of)
    (account,) = population.accounts(1)
    population.join([(account, room) for room in created])
    population.wait_until_idle()
    population.server.stop()
    population.server.start()
    cold, _ = _timed(population, account, body_of(19, "cold"))
    warm = []
    for number in range(REPEATS):
        account.since = ""
        warm.append(_timed(population, account, body_of(19, f"warm{number}"))[0])
    whole, size = _timed(population, account, body_of(rooms, f"warm{REPEATS - 1}"))
    updates = []
    for number in range(3 * REPEATS):
        index = 7 * number % rooms
        population.fetch([population.message(owner_of[index], created[index])])
        updates.append(_timed(population, account, body_of(rooms, f"warm{REPEATS - 1}"))[0])
    note = f"{rooms} rooms"
    return [
        _ms("sliding sync, first 20 rooms", warm, 60, note),
        _ms("sliding sync, first 20 rooms after a restart", [cold], 150, note),
        _ms("sliding sync, all other rooms", [whole], None, f"{note}, {size / 2**20:.1f} MiB"),
        _ms("sliding sync, one message, range of all rooms", updates, 5, note),
    ]


def _ms(name: str, seconds: list[float], target: float | None, note: str) -> Figure:
    return Figure(name, statistics.median(seconds) * 1000, "ms", target, at_most=True, note=note)


def _timed(population: Population, account: Account, body: bytes) -> tuple[float, int]:
    """Seconds of a request that does not wait, and the bytes of its response."""
    start = time.perf_counter()
    message = sliding_poll(account, body, 0)
    (response,) = fetch_all(population.loop, population.server.port, [message], 1)
    elapsed = time.perf_counter() - start
    take_pos(account, response)
    return elapsed, len(response)


class _SlidingGroup(Group):
    """The readers of a group wait with sliding sync."""

    def poll(self, readers: list[Account]) -> None:
        for reader in readers:
            reader.since = ""
        super().poll(readers)

    def _poll(self, reader: Account) -> Script:
        body = body_of(19, "group")
        reader.since = ""
        while True:
            status, response = yield sliding_poll(reader, body, POLL_MS if reader.since else 0)
            if status != 200:
                raise LoadFailed(f"{status} {response[:300]!r}")
            take_pos(reader, response)
            self.deliveries.count(response)


def _group(population: Population, members: list[Account], seconds: float) -> list[Figure]:
    room = population.group(members)
    rates, costs = [], []
    for kind in (Group, _SlidingGroup):
        readers = kind(population, members, room)
        readers.poll(members)
        rate, used = readers.closed_loop(seconds)
        rates.append(rate)
        costs.append(used / len(members) * 1e6)
        readers.close()
        for member in members:
            member.since = ""
    note = f"a group of {MEMBERS}"
    return [
        Figure("deliveries by /sync", rates[0], "/s", note=note),
        Figure("deliveries by sliding sync", rates[1], "/s", note=note),
        Figure("CPU of a delivery by /sync", costs[0], "µs", note=note),
        Figure("CPU of a delivery by sliding sync", costs[1], "µs", 1.5 * costs[0], at_most=True),
    ]


class _SlidingCrowd(Crowd):
    """Clients that wait with sliding sync."""

    def _poll(self, account: Account) -> Script:
        while True:
            status, response = yield sliding_poll(account, CROWD_BODY, POLL_MS)
            if status != 200:
                raise LoadFailed(f"{status} {response[:300]!r}")
            take_pos(account, response)
            self._hear(response)


def _waiting(population: Population, size: float) -> Figure:
    """The memory of each client that waits.

    As in `footprint.py`, they come back after a restart: their connections are read again.
    """
    clients = int(CLIENTS * size)
    accounts = population.accounts(clients + WARM)
    for first in range(0, clients, ROOM_SIZE):
        population.group(accounts[first : first + ROOM_SIZE])
    messages = [sliding_poll(account, CROWD_BODY, 0) for account in accounts]
    responses = fetch_all(population.loop, population.server.port, messages, CONNECTIONS)
    for account, response in zip(accounts, responses, strict=True):
        take_pos(account, response)
    population.wait_until_idle()
    population.server.stop()
    population.server.start()
    crowd = _SlidingCrowd(population)
    crowd.poll(accounts[clients:])
    crowd.settle()
    population.wait_until_idle()
    before = resident_bytes(population.server.pid)
    crowd.poll(accounts[:clients])
    crowd.settle()
    population.wait_until_idle()
    after = resident_bytes(population.server.pid)
    crowd.leave()
    note = f"{clients} clients in rooms of {ROOM_SIZE}"
    each = (after - before) / clients / 1024
    return Figure("waiting sliding sync, memory", each, "KiB", 40, at_most=True, note=note)
