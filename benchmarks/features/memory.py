"""The memory of a server that was used: 65,000 messages in 2,000 rooms, and a minute later.

What the server holds then are its caches, and memory that the allocator did not give back. The
messages go to all rooms in turn, so nothing in the caches is of more use than the rest.
"""

import itertools
import time

from benchmarks.load.figures import Figure
from benchmarks.load.loop import fetch_all
from benchmarks.load.population import Population
from benchmarks.load.processes import cpu_seconds, resident_bytes

ROOMS = 2_000
ROOM_SIZE = 5
MESSAGES = 65_000
SENDERS = 200
CONNECTIONS = 32
IDLE_SECONDS = 65.0  # a full collection waits for a quiet minute
TARGET_MIB = 180


def measure(population: Population, scale: float) -> list[Figure]:
    """The rows of the table."""
    server = population.server
    idle = resident_bytes(server.pid)
    senders = population.accounts(max(int(SENDERS * scale), ROOM_SIZE))
    turn = itertools.cycle(senders)
    crowds = [[next(turn) for _ in range(ROOM_SIZE)] for _ in range(int(ROOMS * scale))]
    rooms = population.rooms([crowd[0] for crowd in crowds])
    groups = list(zip(crowds, rooms, strict=True))
    population.join([(member, room) for crowd, room in groups for member in crowd[1:]])
    used = cpu_seconds([server.pid])
    count = int(MESSAGES * scale)
    senders_in_turn = itertools.islice(
        (
            (crowd[number % ROOM_SIZE], room)
            for number in itertools.count()
            for crowd, room in groups
        ),
        count,
    )
    requests = [population.message(sender, room) for sender, room in senders_in_turn]
    fetch_all(population.loop, server.port, requests, CONNECTIONS)
    used = cpu_seconds([server.pid]) - used
    loaded = resident_bytes(server.pid)
    time.sleep(IDLE_SECONDS)
    note = f"{count:,} messages in {len(rooms):,} rooms of {ROOM_SIZE}"
    return [
        Figure("memory at the start", idle / 1e6, "MB", 75, at_most=True, note="no database"),
        Figure("memory after load", loaded / 2**20, "MiB", TARGET_MIB, at_most=True, note=note),
        Figure(
            "memory a minute later",
            resident_bytes(server.pid) / 2**20,
            "MiB",
            TARGET_MIB,
            at_most=True,
        ),
        Figure("CPU of a message meanwhile", used / count * 1e6, "µs", note="server alone"),
    ]
