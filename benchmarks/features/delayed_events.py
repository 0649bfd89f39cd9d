"""Delayed events: clients of calls that restart theirs, and many that are due in one second."""

import json
import statistics
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from benchmarks.load.figures import Figure
from benchmarks.load.loop import request
from benchmarks.load.population import Account, Population, post
from benchmarks.sending import send

V1 = "/_matrix/client/v1/delayed_events"
CLIENTS = 64
LONG_MS = 3_600_000
DUE_EVENTS = 10  # of each client, in the same second
LEAD_MS = 15_000  # for scheduling them
WAIT_SECONDS = 60.0


def measure(population: Population, seconds: float) -> list[Figure]:
    """Restarts a second of 64 clients, and how late 640 events are that are due in one second."""
    clients = population.accounts(CLIENTS)
    room = population.group(clients)
    ids = dict(
        zip(
            (client.user_id for client in clients),
            _schedule(population, [(client, LONG_MS) for client in clients], room),
            strict=True,
        )
    )

    def restart(client: Account, _: str) -> bytes:
        return post(f"{V1}/{ids[client.user_id]}/restart", client.token, {})

    load = send(population, [(client, room) for client in clients], restart, seconds)
    late = sorted(_lateness(population, clients, room))
    return [
        Figure("restarts of delayed events, 64 clients", load.rate, "/s", note=load.note()),
        Figure("CPU of a restart", load.cpu_seconds * 1e6, "µs", note="the database's included"),
        Figure(
            f"lateness of {len(late)} events due in one second",
            statistics.median(late),
            "ms",
            note=f"the last {late[-1]} ms",
        ),
    ]


def _lateness(population: Population, clients: list[Account], room: str) -> list[int]:
    """How many ms after its time each event was sent."""
    due_ms = time.time() * 1000 + LEAD_MS
    wanted = [client for client in clients for _ in range(DUE_EVENTS)]
    ids = []
    for start in range(0, len(wanted), CLIENTS):
        delay_ms = max(1, int(due_ms - time.time() * 1000))
        part = [(client, delay_ms) for client in wanted[start : start + CLIENTS]]
        ids += _schedule(population, part, room)
    lookups = [
        request("GET", f"{V1}/{delay_id}", client.token)
        for client, delay_id in zip(wanted, ids, strict=True)
    ]
    time.sleep(max(0.0, due_ms / 1000 - time.time()))
    deadline = time.monotonic() + WAIT_SECONDS
    found: list[dict[str, Any]] = []
    for lookup in lookups:
        # One at a time, so that looking hardly delays what is measured.
        while "event_id" not in (looked_up := population.fetch([lookup])[0]):
            if time.monotonic() > deadline:
                raise TimeoutError("events are not sent")
            time.sleep(0.2)
        found.append(looked_up)
    return [each["finalised_ts"] - each["scheduled_at"] - each["delay_ms"] for each in found]


def _schedule(
    population: Population, delays: list[tuple[Account, int]], room: str
) -> Iterator[str]:
    requests = []
    for client, delay_ms in delays:
        txn_id = uuid.uuid4()
        path = f"/_matrix/client/v3/rooms/{quote(room)}/delayed_event/m.room.message/{txn_id}"
        body = {"delay_ms": delay_ms, "content": {"msgtype": "m.text", "body": "later"}}
        requests.append(request("PUT", path, client.token, json.dumps(body).encode()))
    return (response["delay_id"] for response in population.fetch(requests))
