"""Application services: events in order, ghosts that send, and what interest costs.

The application service is a process that accepts everything at once, on the core of the load. Those
whose interest is measured have other namespaces.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from benchmarks.load.fast_receiver import fast_receiver, received
from benchmarks.load.figures import Figure
from benchmarks.load.loop import Loop
from benchmarks.load.population import CLIENT, Account, Population, post
from benchmarks.load.processes import cpu_seconds
from benchmarks.sending import send
from tests.support.process import free_port, running_server

AS_TOKEN = "the token of the benchmark"
EVENTS = 10_000
GHOSTS = 1_000
ROOMS = 100
SENDERS = 64
OTHERS = 20  # application services that are not interested
LARGE_ROOM = 10_000  # members
MESSAGES = 2_000
IDLE_SECONDS = 2.0
SECONDS = 5.0  # of each load
OVERRIDES = {"log": {"level": "WARN"}, "rate_limits": {"enabled": False}}


def measure(cpus: set[int], size: float) -> list[Figure]:
    """The figures, each group on a server of its own; `size` scales the counts."""
    loop = Loop()
    rows = [*_bridging(loop, cpus, size)]
    without = _cost_of_a_message(loop, cpus, size, appservices=0)
    with_others = _cost_of_a_message(loop, cpus, size, appservices=OTHERS)
    members = int(LARGE_ROOM * size)
    rows.append(
        Figure(
            f"interest of {OTHERS} in a room of {members}",
            (with_others - without) * 1e6,
            "µs/message",
            50,
            at_most=True,
            note=f"{without * 1e6:.0f} and {with_others * 1e6:.0f} µs, with the database's",
        )
    )
    return rows


def _bridging(loop: Loop, cpus: set[int], size: float) -> Iterator[Figure]:
    port = free_port()
    with _server(cpus, [_registration("bridge", f"http://127.0.0.1:{port}")]) as server:
        population = Population(server, loop)
        ghosts = _ghosts(population, max(int(GHOSTS * size), SENDERS))
        members = population.accounts(SENDERS)
        rooms = population.rooms(members)
        join(population, [(ghosts[each % len(ghosts)], room) for each, room in enumerate(rooms)])
        events = int(EVENTS * size)
        sends = [
            population.message(members[number % SENDERS], rooms[number % SENDERS])
            for number in range(events)
        ]
        population.fetch(sends, SENDERS)
        # The application service has been away, and has everything to catch up with.
        with fast_receiver(port):
            yield Figure(
                "events to one application service",
                _rate(loop, port, events),
                "/s",
                2_000,
                note="in order, most of them from the database, after an outage",
            )
            yield from _sending(population, ghosts, size)
            population.wait_until_idle()
            before = cpu_seconds(server.process_ids())
            time.sleep(IDLE_SECONDS)
            idle = (cpu_seconds(server.process_ids()) - before) / IDLE_SECONDS * 100
            yield Figure("an idle application service, of a core", idle, "%")


def _sending(population: Population, ghosts: list[Account], size: float) -> Iterator[Figure]:
    """The rate of ghosts, and that of people in rooms of the same size."""
    count = max(int(ROOMS * size), SENDERS)
    people = population.accounts(count)
    in_rooms = len(ghosts) // count
    rooms = population.rooms(people)
    population.join(
        [
            (people[(each + other) % count], rooms[each])
            for each in range(count)
            for other in range(1, in_rooms + 1)
        ]
    )
    bridged = population.rooms(people)
    senders = [(ghost, bridged[number % count]) for number, ghost in enumerate(ghosts)]
    join(population, senders)
    # The first message of a device reads its transaction ids.
    population.fetch([message(population, *sender) for sender in senders], SENDERS)
    in_turn = itertools.cycle(senders)
    own = list(zip(people, rooms, strict=True))[:SENDERS]
    plain = send(population, own, population.message, SECONDS)
    ghostly = send(population, own, lambda *_: message(population, *next(in_turn)), SECONDS)
    yield Figure("messages of people, for comparison", plain.rate, "/s", note=plain.note())
    yield Figure(
        f"messages of {len(ghosts)} ghosts in {count} rooms",
        ghostly.rate / plain.rate * 100,
        "% of that",
        80,
        note=f"{ghostly.rate:.0f}/s, {ghostly.note()}",
    )


def _cost_of_a_message(loop: Loop, cpus: set[int], size: float, *, appservices: int) -> float:
    """CPU seconds of a message in a large room, the database's included."""
    registered = [_registration(f"other{number}", None) for number in range(appservices)]
    with _server(cpus, registered) as server:
        population = Population(server, loop)
        members = population.accounts(max(int(LARGE_ROOM * size), SENDERS))
        room = population.group(members)
        best = float("inf")
        for _ in range(3):
            sends = [population.message(members[0], room) for _ in range(MESSAGES)]
            before = cpu_seconds(server.process_ids())
            population.fetch(sends, 16)
            best = min(best, (cpu_seconds(server.process_ids()) - before) / MESSAGES)
        return best


def _rate(loop: Loop, port: int, events: int) -> float:
    """Events a second, from the first to the last of so many."""
    began, first = 0.0, 0
    while True:
        try:
            count = received(loop, port)[1]
        except ConnectionRefusedError:
            count = 0
        if count and not began:
            began, first = time.perf_counter(), count
        if count >= events:
            return (count - first) / (time.perf_counter() - began)
        time.sleep(0.002)


def _ghosts(population: Population, count: int) -> list[Account]:
    names = [f"_bridge_{number}" for number in range(count)]
    path = f"{CLIENT}/register"
    population.fetch(
        [
            post(
                path,
                AS_TOKEN + "bridge",
                {
                    "type": "m.login.application_service",
                    "username": name,
                    "inhibit_login": True,
                },
            )
            for name in names
        ]
    )
    return [Account(f"@{name}:localhost", AS_TOKEN + "bridge") for name in names]


def join(population: Population, joins: list[tuple[Account, str]]) -> None:
    """Have ghosts join rooms."""
    population.fetch(
        [
            post(f"{CLIENT}/join/{quote(room)}?user_id={quote(one.user_id)}", one.token, {})
            for one, room in joins
        ]
    )


def message(population: Population, ghost: Account, room: str) -> bytes:
    """The request that sends one more message of a ghost."""
    line, rest = population.message(ghost, room).split(b" HTTP/1.1", 1)
    return b"%s?user_id=%s HTTP/1.1%s" % (line, quote(ghost.user_id).encode(), rest)


@contextmanager
def _server(cpus: set[int], registrations: list[dict[str, Any]]) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        for each in registrations:
            Path(folder, f"{each['id']}.yaml").write_text(yaml.safe_dump(each))
        overrides = {**OVERRIDES, "appservices_folder": folder}
        with running_server(overrides, cpus=cpus) as server:
            yield server


def _registration(appservice_id: str, url: str | None) -> dict[str, Any]:
    return {
        "id": appservice_id,
        "url": url,
        "as_token": AS_TOKEN + appservice_id,
        "hs_token": "the token of the server" + appservice_id,
        "sender_localpart": f"{appservice_id}_bot",
        "rate_limited": False,
        "namespaces": {"users": [{"exclusive": True, "regex": f"@_{appservice_id}_.*"}]},
    }
