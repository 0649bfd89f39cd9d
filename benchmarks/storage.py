"""What a message takes in the database: bytes by table and index, of the WAL, and CPU time.

Twenty users send messages of 80 characters into a room each; after a restart they read them back.
"""

import itertools
import random
import time
from collections.abc import Iterator
from urllib.parse import quote

import psycopg

from benchmarks.load.figures import Figure
from benchmarks.load.loop import Loop, request
from benchmarks.load.population import CLIENT, Account, Population
from benchmarks.load.processes import cpu_seconds
from homeserver.cli.running_postgres import find_running
from tests.support.process import ServerProcess

MESSAGES = 20_000
ROOMS = 20
CHARACTERS = 80
PAGE = 100  # messages of a page that is read back
IDLE_SECONDS = 60.0
SMALL = 0.5  # bytes of a message: smaller tables are not shown

# The bytes that every table and index has on disk; a TOAST table counts as its table.
SIZES = """
    SELECT relname, pg_table_size(oid) FROM pg_class
     WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace
"""
JSON_BYTES = "SELECT sum(pg_column_size(json)), sum(pg_column_size(events.*)) FROM events"


def measure(server: ServerProcess, scale: float) -> list[Figure]:
    """Figures of bytes for each message, and of the CPU time of a message sent and read."""
    population = Population(server, Loop())
    members = population.accounts(ROOMS)
    rooms = population.rooms(members)
    pairs = list(zip(members, rooms, strict=True))
    texts = _texts(random.Random(1))
    numbers = itertools.count()

    def messages(count: int) -> list[bytes]:
        return [
            _message(*pair, next(numbers), next(texts))
            for pair in itertools.islice(itertools.cycle(pairs), count)
        ]

    population.fetch(messages(ROOMS), ROOMS)  # every name is known from now on
    count = max(ROOMS, int(MESSAGES * scale))
    with psycopg.connect(_dsn(server), autocommit=True) as db:
        db.execute("CHECKPOINT")
        before, log_before, rows_before = _sizes(db), _log_bytes(db), _row_bytes(db)
        cpu = cpu_seconds(server.process_ids())
        population.fetch(messages(count), ROOMS)
        cpu = (cpu_seconds(server.process_ids()) - cpu) / count
        log = (_log_bytes(db) - log_before) / count
        grown = {name: (size - before[name]) / count for name, size in _sizes(db).items()}
        json, row = (
            (after - earlier) / count
            for after, earlier in zip(_row_bytes(db), rows_before, strict=True)
        )
    searched = sum(size for name, size in grown.items() if name.startswith("search_"))
    stored = sum(grown.values()) - searched
    figures = [
        Figure("a message in the database", stored, "bytes", 650, at_most=True),
        Figure("its JSON", json, "bytes", note=f"the rest of its row {row - json:.0f}"),
        Figure("its part of the search index", searched, "bytes"),
        Figure("WAL, that of the search included", log, "bytes", 1_500, at_most=True),
        *[
            Figure(f"  {name}", size, "bytes")
            for name, size in sorted(grown.items(), key=lambda item: -item[1])
            if size >= SMALL
        ],
        Figure(f"a message sent, {ROOMS} senders, CPU", cpu * 1e6, "µs"),
    ]
    return [*figures, _reading(server, pairs, count)]


def _reading(server: ServerProcess, pairs: list[tuple[Account, str]], count: int) -> Figure:
    """The CPU time of a message that is read from the database, in pages of `/messages`."""
    server.stop()
    server.start()
    population = Population(server, Loop())
    pages = [_page(*pair, "") for pair in pairs]
    answers = population.fetch(pages, 1)  # loads the rooms
    _wait_until_idle(server)
    read = 0
    cpu = cpu_seconds(server.process_ids())
    for _ in range(max(1, count // ROOMS // PAGE - 1)):
        pages = [_page(*pair, each["end"]) for pair, each in zip(pairs, answers, strict=True)]
        answers = population.fetch(pages, 1)
        read += sum(len(each["chunk"]) for each in answers)
    cpu = (cpu_seconds(server.process_ids()) - cpu) / max(1, read)
    return Figure(f"a message read, {PAGE} of a page, CPU", cpu * 1e6, "µs", note=f"of {read:,}")


def _wait_until_idle(server: ServerProcess) -> None:
    """Wait until the readers of the log have caught up, which takes longer than the start."""
    before, deadline = 0.0, time.monotonic() + IDLE_SECONDS
    while time.monotonic() < deadline:
        used = cpu_seconds(server.process_ids())
        if used - before < 0.05:
            return
        before = used
        time.sleep(0.5)


def _texts(chance: random.Random) -> Iterator[str]:
    """Texts of words with the letters of English, roughly as frequent as they are."""
    letters = "etaoinshrdlcumwfgypbvk" + "etaoinshrdl" * 2 + "etaoin" * 2
    words = ["".join(chance.choices(letters, k=chance.randint(1, 9))) for _ in range(5_000)]
    while True:
        yield " ".join(chance.choices(words, k=CHARACTERS))[:CHARACTERS]


def _message(sender: Account, room: str, number: int, text: str) -> bytes:
    path = f"{CLIENT}/rooms/{quote(room)}/send/m.room.message/m{number}"
    return request("PUT", path, sender.token, f'{{"msgtype":"m.text","body":"{text}"}}'.encode())


def _page(member: Account, room: str, start: str) -> bytes:
    since = f"&from={quote(start)}" if start else ""
    path = f"{CLIENT}/rooms/{quote(room)}/messages?dir=b&limit={PAGE}{since}"
    return request("GET", path, member.token)


def _dsn(server: ServerProcess) -> str:
    dsn = find_running(server.directory / "data/postgres")
    assert dsn is not None, "the server has its own database"
    return dsn


def _sizes(db: psycopg.Connection) -> dict[str, int]:
    return dict(db.execute(SIZES).fetchall())


def _row_bytes(db: psycopg.Connection) -> tuple[int, int]:
    """Bytes of the JSON, and of whole rows, of all events."""
    row = db.execute(JSON_BYTES).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0]), int(row[1])


def _log_bytes(db: psycopg.Connection) -> int:
    """The bytes of the WAL that have ever been written."""
    row = db.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
    assert row is not None, "a function has a row"
    return int(row[0])
