"""The search for users: 100,000 users, of whom one searches who is in 200 rooms.

The index is written to the database directly. Half of the users are in public rooms; the searcher
shares private rooms of a hundred members, and other rooms are as large.
"""

import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg

from benchmarks.load.figures import Figure
from benchmarks.load.population import CLIENT, Account, Population, post
from benchmarks.load.processes import cpu_seconds
from homeserver.cli.running_postgres import find_running
from homeserver.protocol.user_directory.keys import keys_of
from homeserver.storage.user_directory.entries import EVERYBODY, LOCAL_USERS

USERS = 100_000
ROOMS = 200  # of the searcher
OTHER_ROOMS = 1_000
MEMBERS = 100  # of each room
ROUNDS = 100
TARGET_MS = 10.0
PATH = f"{CLIENT}/user_directory/search"
OVERRIDES = {
    "log": {"level": "WARN"},
    "rate_limits": {"enabled": False},
    "user_directory": {"search_all_users": True},
}
TERMS = {
    "one letter": "a",
    "two letters": "al",
    "a first name": "alice",
    "a last name": "nakamura",
    "a full name": "alice nak",
    "words in another order": "nakamura ali",
    "the beginning of a user id": "@person4711",
    "two syllables within a name": "민수",
    "nobody": "qqqq",
    "two words, nobody": "alice qqqq",
}
FIRST_NAMES = [
    "Alice", "Albert", "Anna", "Åsa", "Bob", "Carol", "David", "Emma", "Frank", "Grace",
    "Hans", "Iris", "Jonas", "Kenji", "Lena", "Maria", "Nils", "Olga", "Paul", "Rosa",
    "Sofia", "Tom", "Ulla", "Vera", "Walter", "Yuki", "Zoë",
]  # fmt: skip
LAST_NAMES = [
    "Ålund", "Berg", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Hansen",
    "Ivanov", "Johansson", "Kowalski", "López", "Meyer", "Nakamura", "Olsen", "Petrov",
    "Rossi", "Schmidt", "Tanaka", "Weber",
]  # fmt: skip
KOREAN = ("김민수", "이서연", "박지훈", "최민서", "정수민", "강하은", "조민준", "윤서준")


def measure(population: Population, size: float) -> list[Figure]:
    """The rows of the table."""
    directory = population.server.directory / "data" / "postgres"
    dsn = find_running(directory)
    assert dsn is not None, "the server runs its own database"
    users = max(int(USERS * size), MEMBERS * 10)
    (searcher,) = population.accounts(1)
    with psycopg.connect(dsn) as connection:
        _Database(connection, users).fill(searcher)
    return [_search(population, searcher, name, term) for name, term in TERMS.items()]


def _search(population: Population, searcher: Account, name: str, term: str) -> Figure:
    body = {"search_term": term}
    pids = population.server.process_ids()
    cpu, start = cpu_seconds(pids), time.perf_counter()
    for _ in range(ROUNDS):
        (answer,) = population.fetch([post(PATH, searcher.token, body)], 1)
    passed = (time.perf_counter() - start) / ROUNDS
    used = (cpu_seconds(pids) - cpu) / ROUNDS
    note = f"{passed * 1e3:.1f} ms until the response; {len(answer['results'])} results"
    return Figure(f"search for {name}, CPU", used * 1e3, "ms", TARGET_MS, at_most=True, note=note)


class _Database:
    """Writes the index."""

    def __init__(self, connection: psycopg.Connection[Any], users: int) -> None:
        self._connection = connection
        self._random = random.Random(7)
        self._users = {
            f"@person{number}:{'localhost' if number % 2 else f'server{number % 50}.org'}": (
                self._name(number)
            )
            for number in range(users)
        }

    def fill(self, searcher: Account) -> None:
        """All entries, and the searcher's memberships."""
        members = self._nids([*self._users, searcher.user_id])
        rooms = list(self._nids(f"!room{n}:localhost" for n in range(ROOMS + OTHER_ROOMS)).values())
        own = members.pop(searcher.user_id)
        everybody = list(self._users)
        places = [(LOCAL_USERS, user_id) for user_id in everybody if user_id.endswith(":localhost")]
        places += [(EVERYBODY, user_id) for user_id in everybody[::2]]
        for room in rooms:
            places += [(room, user_id) for user_id in self._random.sample(everybody, MEMBERS)]
        self._copy(
            "user_directory_entries (scope, member, display_name, keys)",
            (
                (
                    scope,
                    members[each],
                    self._users[each],
                    "".join(f"\n{key}" for key in keys_of(each, self._users[each])),
                )
                for scope, each in places
            ),
        )
        self._copy(
            "user_directory_keys (scope, key, member)",
            (
                (scope, key, members[each])
                for scope, each in places
                for key in keys_of(each, self._users[each])
            ),
        )
        self._copy(
            "memberships (member, room, membership, event, position, sender)",
            ((own, room, "join", 0, 1, own) for room in rooms[:ROOMS]),
        )
        self._connection.commit()
        self._connection.autocommit = True
        self._connection.execute("VACUUM ANALYZE")

    def _name(self, number: int) -> str:
        if number % 10 == 0:
            return self._random.choice(KOREAN)
        return f"{self._random.choice(FIRST_NAMES)} {self._random.choice(LAST_NAMES)}"

    def _nids(self, names: Iterable[str]) -> dict[str, int]:
        wanted = list(names)
        self._connection.execute(
            "INSERT INTO names (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (wanted,)
        )
        cursor = self._connection.execute(
            "SELECT name, nid FROM names WHERE name = ANY(%s)", (wanted,)
        )
        return dict(cursor.fetchall())

    def _copy(self, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
        with self._connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
