"""The first sync of a new device: an account in a hundred rooms, members loaded lazily."""

import itertools
import json
import statistics
import time
from urllib.parse import quote

from benchmarks.load.figures import Figure
from benchmarks.load.loop import Loop, fetch_all, request
from benchmarks.load.population import CLIENT, Account, Population

ROOMS = 100
MEMBERS = 50
MESSAGES = 12
REPEATS = 7
FILTER = {"room": {"state": {"lazy_load_members": True}}}


def measure(population: Population, members: list[Account]) -> list[Figure]:
    """The row of the table: the median of several warm syncs."""
    newcomer = population.accounts(1)[0]
    turn = itertools.cycle(members)
    crowds = [[next(turn) for _ in range(MEMBERS - 1)] for _ in range(ROOMS)]
    rooms = population.rooms([crowd[0] for crowd in crowds])
    joins = [
        (member, room)
        for crowd, room in zip(crowds, rooms, strict=True)
        for member in [*crowd[1:], newcomer]
    ]
    population.join(joins)
    population.fetch(
        [
            population.message(crowd[number], room)
            for number in range(MESSAGES)
            for crowd, room in zip(crowds, rooms, strict=True)
        ]
    )
    population.wait_until_idle()
    return [_timed(population.loop, population.server.port, newcomer)]


def _timed(loop: Loop, port: int, newcomer: Account) -> Figure:
    path = f"{CLIENT}/sync?filter={quote(json.dumps(FILTER))}"
    seconds, body = [], b""
    for _ in range(REPEATS):
        start = time.perf_counter()
        body = fetch_all(loop, port, [request("GET", path, newcomer.token)], 1)[0]
        seconds.append(time.perf_counter() - start)
    joined = len(json.loads(body)["rooms"]["join"])
    size, cold = len(body) / 2**20, seconds[0] * 1000
    note = f"{joined} rooms of {MEMBERS}, {size:.2f} MiB, the first one {cold:.0f} ms"
    median = statistics.median(seconds[1:]) * 1000
    return Figure("initial sync, lazily loaded", median, "ms", 100, at_most=True, note=note)
