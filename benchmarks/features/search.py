"""Search: a million messages in a thousand rooms, of which the searching user is in fifty.

The events of the other rooms are in the index alone: nothing else of them is read. What indexing
costs a message is the difference between servers with and without it.
"""

import itertools
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg

from benchmarks import sending
from benchmarks.load.figures import Figure, table
from benchmarks.load.loop import Loop, request
from benchmarks.load.population import CLIENT, Account, Population, post
from benchmarks.load.processes import cpu_seconds
from homeserver.cli.running_postgres import find_running
from homeserver.protocol.search.signatures import text_numbers
from homeserver.search.index_entries import IndexEntry, blocks_of
from homeserver.storage.rooms.event_json import unpack_json
from tests.support.process import ServerProcess, running_server

MESSAGES = 1_000_000
ROOMS = 1_000
OWN_ROOMS = 50
WORDS = 12  # of a message
VOCABULARY = 50_000
FREQUENT, RARE = "frequent", "rare"
FREQUENT_SHARE = 0.3
RARE_MESSAGES = 200
YEAR = 365 * 86_400_000_000 << 10  # on the scale of positions
FIRST_NUMBER = 10**12  # of the events that are made here
SEARCHES = 40
SENDERS = 10
SECONDS = 4.0
ROUNDS = 6
OVERRIDES = {"log": {"level": "WARN"}, "rate_limits": {"enabled": False}}
NOTHING_INDEXED = {**OVERRIDES, "search": {"enabled": False}}
COLUMNS = "room, first_event, last_event, first_at, last_at, signature, entries"
EVENT_COLUMNS = "event, room, position, depth, type, sender, event_id, json, state_before"


def measure(cpus: set[int], scale: float, report: Callable[[str], None]) -> list[Figure]:
    """The figures of the part; `report` is called with the first ones."""
    figures = _sending(cpus)
    report(table(figures))
    return [*figures, *_searching(cpus, int(MESSAGES * scale))]


def _sending(cpus: set[int]) -> list[Figure]:
    """The CPU time of a message without and with the index: alternately, on two servers."""
    with (
        running_server(NOTHING_INDEXED, cpus=cpus) as without,
        running_server(OVERRIDES, cpus=cpus) as indexing,
    ):
        senders = [_Senders(server) for server in (without, indexing)]
        rounds = [[each.send() for each in senders] for _ in range(ROUNDS)]
    # Whatever else the machine does makes a round slower, never faster.
    before, after = (min(found) for found in zip(*rounds, strict=True))
    return [
        Figure("a message without the index, 10 senders, CPU", before * 1e6, "µs"),
        Figure("a message with the index, 10 senders, CPU", after * 1e6, "µs"),
        Figure("indexing, of a message", (after / before - 1) * 100, "%", 10, at_most=True),
    ]


class _Senders:
    """Users of a server who send texts of some words, each in a room."""

    def __init__(self, server: ServerProcess) -> None:
        self._population = Population(server, Loop())
        accounts = self._population.accounts(SENDERS)
        self._pairs = list(zip(accounts, self._population.rooms(accounts), strict=True))
        self._texts = _texts(random.Random(1))
        self._numbers = itertools.count()

    def send(self) -> float:
        """The CPU seconds of a message."""
        return sending.send(self._population, self._pairs, self._message, SECONDS).cpu_seconds

    def _message(self, sender: Account, room: str) -> bytes:
        path = f"{CLIENT}/rooms/{quote(room)}/send/m.room.message/t{next(self._numbers)}"
        content = {"msgtype": "m.text", "body": next(self._texts)}
        return request("PUT", path, sender.token, json.dumps(content).encode())


def _searching(cpus: set[int], messages: int) -> list[Figure]:
    with running_server(OVERRIDES, cpus=cpus) as server:
        population = Population(server, Loop())
        user = population.accounts(1)[0]
        rooms = population.rooms([user] * OWN_ROOMS)
        for room in rooms:
            population.fetch([population.message(user, room)])
        dsn = find_running(server.directory / "data/postgres")
        assert dsn is not None, "the server has its own database"
        with psycopg.connect(dsn, autocommit=True) as db:
            seconds = _fill(db, messages)
        cases = {
            "a rare word": (RARE, 50),
            "a word in 30 % of the messages": (FREQUENT, 150),
            "both": (f"{RARE} {FREQUENT}", 50),
            "a beginning of many words": ("wor", 150),
            "a word that nobody wrote": ("nonexistent", 50),
        }
        figures = [Figure(f"{messages:,} messages are copied and indexed in", seconds, "s")]
        for name, (term, target) in cases.items():
            for order in ("rank", "recent"):
                taken, cpu, count = _search(population, user, term, order)
                note = f"least {min(taken) * 1000:.1f} ms, CPU {cpu * 1000:.1f} ms, count {count}"
                median = statistics.median(taken) * 1000
                name_of_case = f"{name}, by {order}: median"
                figures.append(Figure(name_of_case, median, "ms", target, at_most=True, note=note))
        return figures


def _search(
    population: Population, user: Account, term: str, order: str
) -> tuple[list[float], float, int]:
    """The times of the searches, the CPU seconds of one, and the count in the response."""
    body = {"search_categories": {"room_events": {"search_term": term, "order_by": order}}}
    pids = population.server.process_ids()
    taken, count = [], 0
    cpu = cpu_seconds(pids)
    for _ in range(SEARCHES):
        start = time.perf_counter()
        (answer,) = population.fetch([post(f"{CLIENT}/search", user.token, body)], 1)
        taken.append(time.perf_counter() - start)
        count = answer["search_categories"]["room_events"]["count"]
    return taken, (cpu_seconds(pids) - cpu) / SEARCHES, count


def _texts(chance: random.Random) -> Iterator[str]:
    """Texts with words as frequent as those of languages are."""
    vocabulary = [f"word{number}" for number in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))
    while True:
        for _ in range(1_000):
            yield " ".join(chance.choices(vocabulary, cum_weights=weights, k=WORDS))


def _fill(db: psycopg.Connection, messages: int) -> float:
    """Put the messages into the index, and those of the user's rooms into the events, too."""
    own = db.execute(
        """
        SELECT DISTINCT ON (room) room, type, sender, json, state_before
          FROM events
         WHERE position > 0 AND state_key IS NULL
         ORDER BY room, position DESC
        """
    ).fetchall()
    chance = random.Random(2)
    others = range(10_000_000, 10_000_000 + ROOMS - len(own))
    start = time.perf_counter()
    stored = []
    entries = defaultdict(list)
    rare = max(messages // RARE_MESSAGES, 1)
    for number, text in enumerate(itertools.islice(_texts(chance), messages)):
        event, sent_at = FIRST_NUMBER + number, number * (YEAR // messages) + 1
        words = text
        if chance.random() < FREQUENT_SHARE:
            words += f" {FREQUENT}"
        if number % rare == 0:
            words += f" {RARE}"
        is_own = number % (ROOMS // OWN_ROOMS) == 0
        template = own[number // (ROOMS // OWN_ROOMS) % len(own)]
        room = template[0] if is_own else chance.choice(others)
        entry = IndexEntry(event, sent_at, template[2], 0, False, text_numbers(words))
        entries[room].append(entry)
        if is_own:
            stored.append((event, template, sent_at, words))
    rows = [block.row[1] for room, found in entries.items() for block in blocks_of(room, found)]
    rows.sort(key=lambda row: bytes(row[2]))  # as rooms are active at the same time
    with db.cursor().copy(f"COPY search_blocks ({COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "int8", "int8", "int8", "int8", "bytea", "bytea"])
        for *numbers, signature, packed in rows:
            values = [int.from_bytes(value, signed=True) for value in numbers]
            copy.write_row((*values, signature, packed))
    with db.cursor().copy(f"COPY events ({EVENT_COLUMNS}) FROM STDIN") as copy:
        for event, (room, kind, sender, pdu, root), position, words in stored:
            content = {
                **json.loads(unpack_json(pdu)),
                "content": {"msgtype": "m.text", "body": words},
            }
            encoded = json.dumps(content).encode()
            row = (event, room, position, 1, kind, sender, f"${event}", encoded, root)
            copy.write_row(row)
    with db.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE search_blocks")
    return time.perf_counter() - start
