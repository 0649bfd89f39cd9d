"""The first answers after a restart: nothing is in memory, and all of it is read.

Two accounts, in 40 and in 2,000 rooms, make their first sync right after a start, each after one of
its own; then the server starts with 100,000 rooms in its database, copied from one that the API
made.
"""

import itertools
import json
import statistics
import time
from urllib.parse import quote

import psycopg

from benchmarks.load.figures import Figure
from benchmarks.load.loop import fetch_all, request
from benchmarks.load.population import CLIENT, Account, Population
from benchmarks.load.processes import cpu_seconds
from homeserver.cli.running_postgres import find_running

FEW, MANY, STORED = 40, 2_000, 100_000
ROOM_SIZE = 5
MESSAGES = 12
OWNERS = 100
REPEATS = 5
FIRST_NUMBER = 10**12  # of the events that are copied
COPIES = (
    """
    CREATE TEMPORARY TABLE copies AS
    SELECT number, '!copy' || number || ':localhost' AS name
      FROM generate_series(1, %(count)s) AS number
    """,
    "INSERT INTO names (name) SELECT name FROM copies",
    """
    INSERT INTO rooms (room, version, creator, published, room_type, is_encrypted)
    SELECT nid, version, creator, published, room_type, is_encrypted
      FROM rooms, copies JOIN names USING (name)
     WHERE room = %(room)s
    """,
    """
    INSERT INTO memberships (member, room, membership, event, position, sender)
    SELECT member, nid, membership, event, position, sender
      FROM memberships, copies JOIN names USING (name)
     WHERE room = %(room)s
    """,
    """
    INSERT INTO events (event, room, position, depth, type, sender, event_id, json, state_before)
    SELECT %(first)s + number, nid, position, depth, type, sender, event_id || number, json,
           state_before
      FROM copies JOIN names USING (name),
           (SELECT * FROM events WHERE room = %(room)s ORDER BY position DESC LIMIT 1) AS newest
    """,
)
QUIET = {"presence": {"types": []}}
LAZY = {"room": {"state": {"lazy_load_members": True}}}


def measure(population: Population, scale: float) -> list[Figure]:
    """The rows of the table."""
    owners = population.accounts(OWNERS)
    few, many = population.accounts(2)
    _populate(population, owners, few, max(int(FEW * scale), 1))
    rooms = _populate(population, owners, many, max(int(MANY * scale), 1))
    figures = [
        *_first_sync(population, few, QUIET, f"in {FEW} rooms", 100),
        *_first_sync(population, few, QUIET | LAZY, f"in {FEW} rooms, lazily loaded", 100),
        *_first_sync(population, many, QUIET, f"in {MANY:,} rooms", 600),
        *_first_sync(population, many, QUIET | LAZY, f"in {MANY:,} rooms, lazily loaded", 600),
    ]
    _copy_room(population, rooms[0], int(STORED * scale))
    return [*figures, _start(population, int(STORED * scale))]


def _populate(
    population: Population, owners: list[Account], account: Account, count: int
) -> list[str]:
    """Rooms of five that an account is in, with some messages in each."""
    turn = itertools.cycle(owners)
    crowds = [[next(turn) for _ in range(ROOM_SIZE - 1)] for _ in range(count)]
    rooms = population.rooms([crowd[0] for crowd in crowds])
    groups = list(zip(crowds, rooms, strict=True))
    joins = [(member, room) for crowd, room in groups for member in [*crowd[1:], account]]
    population.join(joins)
    for number in range(MESSAGES):
        sender = number % (ROOM_SIZE - 1)
        population.fetch([population.message(crowd[sender], room) for crowd, room in groups])
    return rooms


def _first_sync(
    population: Population, account: Account, wanted: object, named: str, target: float
) -> list[Figure]:
    """The time and the CPU time of an initial sync, each right after a restart."""
    server = population.server
    path = f"{CLIENT}/sync?filter={quote(json.dumps(wanted))}"
    seconds, used, size = [], [], 0
    for _ in range(REPEATS):
        population.wait_until_idle()
        server.stop()
        server.start()
        before, start = cpu_seconds(server.process_ids()), time.perf_counter()
        message = request("GET", path, account.token)
        (body,) = fetch_all(population.loop, server.port, [message], 1)
        seconds.append(time.perf_counter() - start)
        used.append(cpu_seconds(server.process_ids()) - before)
        size = len(body)
    cpu = f"{statistics.median(used) * 1000:.0f} ms of CPU with the database's"
    return [
        Figure(
            f"first sync {named}, after a restart",
            statistics.median(seconds) * 1000,
            "ms",
            target,
            at_most=True,
            note=f"{size / 2**20:.1f} MiB; {cpu}",
        )
    ]


def _start(population: Population, rooms: int) -> Figure:
    """The time from the start of the process until it listens."""
    seconds = []
    for _ in range(REPEATS):
        population.server.stop()
        start = time.perf_counter()
        population.server.start()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return Figure("start", median, "s", 3, at_most=True, note=f"{rooms:,} rooms in the database")


def _copy_room(population: Population, room_id: str, count: int) -> None:
    """Copies of a room in the database: its row, its members, and its newest event."""
    dsn = find_running(population.server.directory / "data" / "postgres")
    assert dsn is not None, "the server runs"
    with psycopg.connect(dsn, autocommit=True) as db:
        found = db.execute("SELECT nid FROM names WHERE name = %s", (room_id,)).fetchone()
        assert found is not None, "the room exists"
        for statement in COPIES:
            db.execute(statement, {"room": found[0], "count": count, "first": FIRST_NUMBER})
        db.execute("VACUUM ANALYZE")
