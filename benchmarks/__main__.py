"""Measure the whole server: `python -m benchmarks [PART…]`.

A server process with its embedded database runs on one core, fsync on, the load generator on
another one. The same run measures the trivial page that a message's cost is compared with.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    comparison,
    delivery,
    footprint,
    initial_sync,
    large_scale,
    requests,
    sending,
    storage,
)
from benchmarks.features import (
    appservices,
    cold_start,
    delayed_events,
    encryption,
    mails,
    memory,
    profiles,
    purges,
    push,
    search,
    sliding_sync,
    user_directory,
)
from benchmarks.growth.curves import Curve, growth_table, plot
from benchmarks.growth.destinations import by_destinations
from benchmarks.growth.measures import by_devices, by_events, by_members, by_rooms
from benchmarks.load.figures import Figure, table
from benchmarks.load.loop import Loop
from benchmarks.load.population import Population
from benchmarks.media import previews, transfers
from tests.support.process import running_server

PARTS = ("requests", "sending", "delivery", "initial_sync", "footprint")
MEMBERS = 100
OVERRIDES = {"log": {"level": "WARN"}}
GROWTH: tuple[tuple[Callable[[Population, int], list[Curve]], int], ...] = (
    (by_members, 10_000),
    (by_rooms, 10_000),
    (by_events, 100_000),
    (by_devices, 1_000),
)
DESTINATIONS = 100


def main() -> int:
    """Run the parts that were named and print one table; the exit status is 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    named = ", ".join(NAMED)
    names = f"{', '.join(PARTS)}; all of these if none; {named} only if named"
    parser.add_argument("parts", nargs="*", metavar="PART", help=names)
    parser.add_argument("--seconds", type=float, default=5, help="length of each load (5)")
    parser.add_argument("--scale", type=float, default=1, help="size of the named parts (1)")
    parser.add_argument(
        "--storage", choices=("local", "s3"), default="local", help="where the files of media are"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the growth as a picture (SVG)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON, too")
    parser.add_argument("--compare", metavar="COMMIT", help="measure that commit's server in turn")
    parser.add_argument("--pairs", type=int, default=4, help="runs of each server (4)")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - {*PARTS, *NAMED}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = arguments.parts or list(PARTS)
    if arguments.compare:
        sizes = ["--seconds", str(arguments.seconds), "--scale", str(arguments.scale)]
        options = [*parts, *sizes, "--storage", arguments.storage]
        print(comparison.compare(arguments.compare, options, arguments.pairs, report))
        return 0
    figures = run(parts, arguments.seconds) if set(PARTS) & set(parts) else []
    for part, run_part in NAMED.items():
        if part in parts:
            figures += run_part(arguments)
    print(f"\n{table(figures)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(row) for row in figures]))
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
            "requests": lambda: requests.measure(population, members, seconds),
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
    """The figures of `benchmarks.features.appservices`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    return appservices.measure(server_cores, size)


def run_cold_start(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.cold_start`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return cold_start.measure(Population(server, Loop()), size)


def run_delayed_events(seconds: float) -> list[Figure]:
    """The figures of `benchmarks.features.delayed_events`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return delayed_events.measure(Population(server, Loop()), seconds)


def run_encryption(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.encryption`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return encryption.measure(Population(server, Loop()), size)


def run_mails() -> list[Figure]:
    """The figures of `benchmarks.features.mails`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with (
        mails.mail_process() as directory,
        running_server(mails.overrides(directory), cpus=server_cores) as server,
    ):
        return mails.measure(Population(server, Loop()), directory)


def run_growth(size: float, plotted: Path | None) -> list[Figure]:
    """The figures of `benchmarks.growth`, with a table of all sizes and a plot."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    curves: list[Curve] = []
    for measure, most in GROWTH:
        with running_server(OVERRIDES, cpus=server_cores) as server:
            curves += measure(Population(server, Loop()), int(most * size))
        report(growth_table(curves))
    with tempfile.TemporaryDirectory(prefix="homeserver-") as directory:
        Path(directory).chmod(0o755)
        curves += by_destinations(Path(directory), int(DESTINATIONS * size), server_cores)
    report(growth_table(curves))
    if plotted is not None:
        plot(curves, plotted)
    return [curve.figure() for curve in curves]


def run_media(size: float, storage: str) -> list[Figure]:
    """The figures of `benchmarks.media.transfers`; a bucket is on the cores of the load."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with ExitStack() as stack:
        media = {}
        if storage == "s3":
            s3 = stack.enter_context(transfers.bare_bucket(own_cores))
            media = {"storage": "s3", "s3": s3}
        server = stack.enter_context(
            running_server({**OVERRIDES, "media": media}, cpus=server_cores)
        )
        return transfers.measure(Population(server, Loop()), size, server_cores)


def run_memory(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.memory`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return memory.measure(Population(server, Loop()), size)


def run_previews(size: float) -> list[Figure]:
    """The figures of `benchmarks.media.previews`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(previews.OVERRIDES, cpus=server_cores) as server:
        return previews.measure(Population(server, Loop()), size)


def run_purges(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.purges`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return purges.measure(Population(server, Loop()), size)


def run_push(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.push`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(push.OVERRIDES, cpus=server_cores) as server:
        return push.measure(Population(server, Loop()), size)


def run_search(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.search`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    return search.measure(server_cores, size, report)


def run_sliding_sync(size: float, seconds: float) -> list[Figure]:
    """The figures of `benchmarks.features.sliding_sync`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return sliding_sync.measure(Population(server, Loop()), size, seconds)


def run_profiles(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.profiles`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(profiles.OVERRIDES, cpus=server_cores) as server:
        return profiles.measure(Population(server, Loop()), size)


def run_storage(size: float) -> list[Figure]:
    """The figures of `benchmarks.storage`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(OVERRIDES, cpus=server_cores) as server:
        return storage.measure(server, size)


def run_user_directory(size: float) -> list[Figure]:
    """The figures of `benchmarks.features.user_directory`."""
    server_cores, own_cores = cores()
    os.sched_setaffinity(0, own_cores)
    with running_server(user_directory.OVERRIDES, cpus=server_cores) as server:
        return user_directory.measure(Population(server, Loop()), size)


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


# Each has servers of its own, and takes some minutes.
NAMED: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "appservices": lambda options: run_appservices(options.scale),
    "cold_start": lambda options: run_cold_start(options.scale),
    "delayed_events": lambda options: run_delayed_events(options.seconds),
    "encryption": lambda options: run_encryption(options.scale),  # makes 1,000 accounts
    "growth": lambda options: run_growth(options.scale, options.plot),
    "mails": lambda _: run_mails(),
    "media": lambda options: run_media(options.scale, options.storage),  # needs 10 GB of disk
    "memory": lambda options: run_memory(options.scale),
    "previews": lambda options: run_previews(options.scale),
    "profiles": lambda options: run_profiles(options.scale),
    "purges": lambda options: run_purges(options.scale),
    "push": lambda options: run_push(options.scale),
    "search": lambda options: run_search(options.scale),  # copies a million messages
    "sliding_sync": lambda options: run_sliding_sync(options.scale, options.seconds),
    "storage": lambda options: run_storage(options.scale),
    "user_directory": lambda options: run_user_directory(options.scale),  # makes 100,000 users
    "scale": lambda options: run_large_scale(options.scale),
}


if __name__ == "__main__":
    sys.exit(main())
