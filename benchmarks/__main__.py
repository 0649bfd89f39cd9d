"""Measure the whole server: `python -m benchmarks [PART…]`.

A server process with its embedded database runs on one core, fsync on, the load generator on
another one. The same run measures the trivial page that a message's cost is compared with.
"""

import argparse
import os
import sys
from collections.abc import Callable

from benchmarks import (
    appservices,
    delivery,
    encryption,
    footprint,
    initial_sync,
    large_scale,
    push,
    sending,
    sliding_sync,
)
from benchmarks.load.figures import Figure, table
from benchmarks.load.loop import Loop
from benchmarks.load.population import Population
from benchmarks.media import transfers
from tests.support.process import running_server

PARTS = ("sending", "delivery", "initial_sync", "footprint")
APPSERVICES = "appservices"  # servers of its own
ENCRYPTION = "encryption"  # makes 1,000 accounts, on a server of its own
PUSH = "push"  # with a gateway, on a server of its own
MEDIA = "media"  # transfers 20 GB, and needs 10 GB of disk
LARGE_SCALE = "scale"  # takes some minutes, and a server of its own
MEMBERS = 100
SLIDING_SYNC = "sliding_sync"  # an account in 2,000 rooms, on a server of its own
NAMED = (APPSERVICES, ENCRYPTION, MEDIA, PUSH, SLIDING_SYNC, LARGE_SCALE)
HELP = f"{', '.join(PARTS)}; all of these if none; {', '.join(NAMED)} only if named"
OVERRIDES = {"log": {"level": "WARN"}}


def main() -> int:
    """Run the parts that were named and print one table; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=HELP)
    parser.add_argument("--seconds", type=float, default=5, help="length of each load (5)")
    parser.add_argument("--scale", type=float, default=1, help="size of the named parts (1)")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - {*PARTS, *NAMED}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = arguments.parts or list(PARTS)
    figures = run(parts, arguments.seconds) if set(PARTS) & set(parts) else []
    if APPSERVICES in parts:
        figures += run_appservices(arguments.scale)
    if ENCRYPTION in parts:
        figures += run_encryption(arguments.scale)
    if MEDIA in parts:
        figures += run_media(arguments.scale)
    if PUSH in parts:
        figures += run_push(arguments.scale)
    if SLIDING_SYNC in parts:
        figures += run_sliding_sync(arguments.scale, arguments.seconds)
    if LARGE_SCALE in parts:
        figures += run_large_scale(arguments.scale)
    print(f"\n{table(figures)}")
    return 0


def run(parts: list[str], seconds: float) -> list[Figure]:
    """The figures of the parts, in the order of `PARTS`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    loop = Loop()
    figures: list[Figure] = []
    with running_server(OVERRIDES, cpus=server_cores) as server:
        population = Population(server, loop)
        members = population.accounts(MEMBERS)
        measures: dict[str, Callable[[], list[Figure]]] = {
            "sending": lambda: sending.figures(
                sending.measure(population, members, seconds),
                sending.trivial_page(loop, server_cores, seconds),
            ),
            "delivery": lambda: delivery.measure(population, members, seconds),
            "initial_sync": lambda: initial_sync.measure(population, members),
            "footprint": lambda: footprint.measure(population),
        }
        for part in PARTS:
            if part in parts:
                rows = measures[part]()
                # Printed immediately: a later part may fail, and the run is long.
                report(table(rows))
                figures += rows
    return figures


def run_appservices(size: float) -> list[Figure]:
    """The figures of `benchmarks.appservices`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    return appservices.measure(server_cores, size)


def run_encryption(size: float) -> list[Figure]:
    """The figures of `benchmarks.encryption`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return encryption.measure(Population(server, Loop()), size)


def run_media(size: float) -> list[Figure]:
    """The figures of `benchmarks.media.transfers`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return transfers.measure(Population(server, Loop()), size, server_cores)


def run_push(size: float) -> list[Figure]:
    """The figures of `benchmarks.push`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(push.OVERRIDES, cpus=server_cores) as server:
        return push.measure(Population(server, Loop()), size)


def run_sliding_sync(size: float, seconds: float) -> list[Figure]:
    """The figures of `benchmarks.sliding_sync`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return sliding_sync.measure(Population(server, Loop()), size, seconds)


def run_large_scale(size: float) -> list[Figure]:
    """The figures of `benchmarks.large_scale`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(large_scale.OVERRIDES, cpus=server_cores) as server:
        return large_scale.measure(Population(server, Loop()), size, report)


def cores() -> tuple[set[int], set[int]]:
    """One core for the server and its database, another one for the load."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        report("only one core: server and load share it, so all rates are lower than they could be")
    return {available[0]}, {available[-1]}


def report(text: str) -> None:
    """Report progress on standard error, separately from the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
