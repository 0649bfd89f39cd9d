"""Purges of history and deletions of rooms, and what users notice of them."""

import subprocess
import sys
import time

from benchmarks import sending
from benchmarks.load.figures import Figure
from benchmarks.load.population import Population
from tests.support.process import CHECKOUT

MESSAGES = 20_000
SENDERS = 10
SECONDS = 5.0


def measure(population: Population, size: float) -> list[Figure]:
    """The figures of the part."""
    messages = max(int(MESSAGES * size), 1_000)
    accounts = population.accounts(SENDERS + 1)
    owner, members = accounts[0], accounts[1:]
    (room,) = population.rooms([owner])
    population.fetch([population.message(owner, room) for _ in range(messages)])
    senders = list(zip(members, population.rooms(members), strict=True))
    quiet = sending.send(population, senders, population.message, SECONDS)

    purge = ["purge-history", room, "--older-than", "0s", "--with-local"]
    began = _begin(population, *purge)
    busy = sending.send(population, senders, population.message, SECONDS)
    purged = _wait(population, began)
    deleted = _wait(population, _begin(population, "delete", room))
    return [
        Figure("messages, 10 senders, without a job", quiet.rate, "/s", note=quiet.note()),
        Figure("messages, 10 senders, during a purge", busy.rate, "/s", note=busy.note()),
        Figure(f"purge of {messages:,} messages, {SECONDS:g} s of it under load", purged, "s"),
        Figure(f"deletion of that room, {messages:,} events", deleted, "s"),
    ]


def _begin(population: Population, *words: str) -> float:
    _run(population, "room", *words)
    return time.perf_counter()


def _wait(population: Population, began: float) -> float:
    """The time from the creation of a job to its end."""
    while any(word in _run(population, "jobs", "list") for word in ("waiting", "running")):
        time.sleep(0.5)
    return time.perf_counter() - began


def _run(population: Population, *words: str) -> str:
    config = str(population.server.config_path)
    line = [sys.executable, "-m", "homeserver", *words, "--config", config]
    return subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
