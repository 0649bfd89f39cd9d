"""The memory of an idle server and of each client that is only connected.

The server is restarted for each case, so that memory freed by earlier work hides nothing, and gets
a few requests first, so that objects made on first use are not counted as memory of the clients.
The clients connect a few at a time: what all of them at once would need for a moment is not what
they cost while they wait.
"""

import time
from collections.abc import Callable

from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Script
from benchmarks.load.population import Account, Population, poll, take_next_batch
from benchmarks.load.processes import resident_bytes
from benchmarks.websocket import WebSocket

CLIENTS = 1000
ROOM_SIZE = 10
POLL_MS = 600_000
WARM = 20
AT_A_TIME = 50
PAUSE_SECONDS = 0.5
CALM_SECONDS = 2.0
GIVE_UP_SECONDS = 60.0


class Crowd:
    """Clients that are connected and send nothing."""

    def __init__(self, population: Population) -> None:
        self.population = population
        self.last_heard = time.perf_counter()
        self._connections: list[HttpConnection | WebSocket] = []

    def poll(self, accounts: list[Account]) -> None:
        """Each account waits in a long poll."""
        for number, account in enumerate(accounts, 1):
            connection = HttpConnection(self.population.loop, self.population.server.port)
            connection.run(self._poll(account))
            self._connections.append(connection)
            self._pause_after(number)

    def open_sockets(self, accounts: list[Account]) -> None:
        """Each account holds a WebSocket."""
        port, loop = self.population.server.port, self.population.loop
        for number, account in enumerate(accounts, 1):
            self._connections.append(WebSocket(loop, port, account.token, self._hear))
            self._pause_after(number)

    def settle(self, calm: float = CALM_SECONDS) -> None:
        """Wait until no client has received anything for `calm` seconds."""
        self.last_heard = time.perf_counter()
        deadline = self.last_heard + GIVE_UP_SECONDS
        while time.perf_counter() - self.last_heard < calm:
            self.population.loop.run_for(0.1)
            if time.perf_counter() > deadline:
                raise LoadFailed("the idle clients do not come to rest")

    def leave(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _pause_after(self, number: int) -> None:
        if number % AT_A_TIME == 0:
            self.settle(PAUSE_SECONDS)

    def _hear(self, _payload: bytes) -> None:
        self.last_heard = time.perf_counter()

    def _poll(self, account: Account) -> Script:
        while True:
            status, body = yield poll(account, POLL_MS)
            if status != 200:
                raise LoadFailed(f"{status} {body[:300]!r}")
            take_next_batch(account, body)
            self._hear(body)


def measure(population: Population) -> list[Figure]:
    """The rows of the table."""
    accounts = population.accounts(CLIENTS + WARM)
    for first in range(0, CLIENTS, ROOM_SIZE):
        population.group(accounts[first : first + ROOM_SIZE])
    population.sync(accounts)
    idle, per_poll = _difference(population, accounts, Crowd.poll)
    _, per_socket = _difference(population, accounts, Crowd.open_sockets)
    note = f"{CLIENTS} clients in rooms of {ROOM_SIZE}"
    return [
        Figure("idle server, memory", idle / 1e6, "MB", 90, at_most=True, note="no database"),
        Figure("idle long poll, memory", per_poll / 1024, "KiB", 25, at_most=True, note=note),
        Figure("idle WebSocket, memory", per_socket / 1024, "KiB", 40, at_most=True, note=note),
    ]


def _difference(
    population: Population,
    accounts: list[Account],
    connect: Callable[[Crowd, list[Account]], None],
) -> tuple[int, float]:
    """Resident bytes of the idle server, and how many more there are for each client."""
    server = population.server
    server.stop()
    server.start()
    idle = resident_bytes(server.pid)
    crowd = Crowd(population)
    connect(crowd, accounts[CLIENTS:])
    crowd.settle()
    crowd.leave()
    population.loop.run_for(CALM_SECONDS)
    before = resident_bytes(server.pid)
    connect(crowd, accounts[:CLIENTS])
    crowd.settle()
    after = resident_bytes(server.pid)
    crowd.leave()
    return idle, (after - before) / CLIENTS
