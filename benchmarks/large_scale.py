"""Many rooms, many members, a long history, many users online: `python -m benchmarks scale`.

An account in 2,000 rooms, a room of 10,000 members, 100,000 messages in one room, 10,000 users
online. All of it is made through the HTTP API, which takes some minutes.
"""

import itertools
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote

from benchmarks import presence
from benchmarks.delivery import Group
from benchmarks.large import LargeResponses
from benchmarks.load.figures import Figure, table
from benchmarks.load.loop import fetch_all, request
from benchmarks.load.population import CLIENT, Account, Population, post

ROOMS = 2_000
ROOM_SIZE = 5
ROOM_MESSAGES = 12
MEMBERS = 10_000
JOINERS = 7
MESSAGES = 100_000
SENDERS = 64
CONNECTED = 500  # members of the large room that hold a WebSocket
CHANGED = 10  # rooms with new events
PAGE = 100
SAMPLED_PAGES = 50
OVERRIDES = {
    "log": {"level": "WARN"},
    # Users who have synced once stay online for the whole run.
    "presence": {"enabled": True, "idle_after": 7200.0, "offline_after": 7200.0},
}
QUIET = {"presence": {"types": []}}  # presence is measured separately
LAZY = {"room": {"state": {"lazy_load_members": True}}}
END = re.compile(rb'"end":"([^"]+)"')
EVENT_ID = re.compile(rb'"event_id":"([^"]+)"')


def measure(population: Population, scale: float, report: Callable[[str], None]) -> list[Figure]:
    """The rows of the table; `scale` makes everything smaller, to try things out.

    `report` is called with the progress.
    """
    figures: list[Figure] = []

    def add(rows: list[Figure]) -> None:
        report(table(rows))
        figures.extend(rows)

    members = population.accounts(int(MEMBERS * scale))
    report("the accounts exist")
    add(_many_rooms(population, members, int(ROOMS * scale)))
    room = population.group(members)
    report("the large room exists")
    add(_large_room(population, members, room))
    add(_connected(population, members, room))
    add(_long_history(population, members[:SENDERS], int(MESSAGES * scale)))
    add(presence.measure(population, members))
    return figures


def _many_rooms(population: Population, members: list[Account], count: int) -> list[Figure]:
    newcomer = population.accounts(1)[0]
    turn = itertools.cycle(members)
    crowds = [[next(turn) for _ in range(ROOM_SIZE - 1)] for _ in range(count)]
    rooms = population.rooms([crowd[0] for crowd in crowds])
    groups = list(zip(crowds, rooms, strict=True))
    joins = [(member, room) for crowd, room in groups for member in [*crowd[1:], newcomer]]
    population.join(joins)
    for _ in range(ROOM_MESSAGES):
        population.fetch([population.message(crowd[0], room) for crowd, room in groups])
    responses = LargeResponses(population)
    responses.time_messages_alone()
    named = f"in {count:,} rooms"
    responses.get(f"initial sync {named}, lazily loaded", newcomer, _sync(QUIET | LAZY))
    body = responses.get(f"initial sync {named}", newcomer, _sync(QUIET))
    newcomer.since = json.loads(body)["next_batch"]
    population.fetch([population.message(crowd[0], room) for crowd, room in groups[:CHANGED]])
    later = _sync(QUIET, newcomer.since)
    responses.get(f"sync {named}, {CHANGED} changed", newcomer, later)
    responses.get(f"joined_rooms {named}", newcomer, f"{CLIENT}/joined_rooms")
    figures = responses.finish()
    population.server.stop()
    population.server.start()
    restarted = LargeResponses(population)
    note = "the user change queues are empty"
    restarted.get(f"sync {named}, after a restart", newcomer, later, note=note)
    return figures + restarted.finish()


def _large_room(population: Population, members: list[Account], room: str) -> list[Figure]:
    responses = LargeResponses(population)
    path = f"{CLIENT}/rooms/{quote(room)}"
    joiners = population.accounts(JOINERS)
    joins = [post(f"{CLIENT}/join/{quote(room)}", joiner.token, {}) for joiner in joiners]
    count = f"{len(members):,}"
    responses.time(f"joining a room of {count}", joins)
    reader = joiners[0]
    responses.get(f"members of {count}", reader, f"{path}/members")
    responses.get(f"joined_members of {count}", reader, f"{path}/joined_members")
    responses.get(f"state of a room of {count}", reader, f"{path}/state")
    responses.get(f"sync in a room of {count}, lazily loaded", reader, _sync(QUIET | LAZY))
    responses.get(f"sync in a room of {count}", reader, _sync(QUIET))
    sent = population.fetch([population.message(members[0], room)])[0]["event_id"]
    around = f"{path}/context/{quote(sent)}?limit=20"
    responses.get(f"context in a room of {count}", reader, around)
    lazily = f"{around}&filter={quote(json.dumps(LAZY['room']['state']))}"
    responses.get(f"context in a room of {count}, lazily loaded", reader, lazily)
    sends = [population.message(member, room) for member in members[:100]]
    responses.time(f"a message in a room of {count}", sends)
    return responses.finish()


def _connected(population: Population, members: list[Account], room: str) -> list[Figure]:
    """Deliveries of messages in the large room to its connected members."""
    group = Group(population, members, room)
    group.open_sockets(members[:CONNECTED])
    last = group.median_delay(25, 0.2)
    rate, _ = group.closed_loop(3)
    group.close()
    connected = min(CONNECTED, len(members))
    name = f"{connected} connected of {len(members):,}"
    return [
        Figure(f"last of {name}, 5 messages/s", last * 1000, "ms", note="median of 25"),
        Figure(f"deliveries, {name}, one by one", rate, "/s"),
    ]


def _long_history(population: Population, senders: list[Account], count: int) -> list[Figure]:
    room = population.group(senders)
    turn = itertools.cycle(senders)
    requests = [population.message(next(turn), room) for _ in range(count)]
    port = population.server.port
    fetch_all(population.loop, port, requests, SENDERS)
    responses = LargeResponses(population)
    reader = senders[0]
    path = f"{CLIENT}/rooms/{quote(room)}"
    start, tokens, body = time.perf_counter(), [""], b""
    while True:
        page = request("GET", _page(path, tokens[-1]), reader.token)
        body = fetch_all(population.loop, port, [page], 1)[0]
        end = END.search(body)
        if end is None:
            break
        tokens.append(end[1].decode())
    seconds = time.perf_counter() - start
    sampled = tokens[:-1][:: max(1, len(tokens) // SAMPLED_PAGES)]
    pages = [request("GET", _page(path, token), reader.token) for token in sampled]
    note = f"all {len(tokens) - 1:,} pages took {seconds:.1f} s"
    bodies = responses.time(f"messages: {PAGE} of {count:,}, anywhere", pages, note=note)
    found = EVENT_ID.search(bodies[len(bodies) // 2])
    assert found is not None
    around = f"{path}/context/{quote(found[1].decode())}?limit={PAGE}"
    responses.get(f"context of {PAGE} among {count:,}", reader, around)
    return responses.finish()


def _sync(wanted: dict[str, object], since: str = "") -> str:
    suffix = f"&since={quote(since)}" if since else ""
    return f"{CLIENT}/sync?filter={quote(json.dumps(wanted))}{suffix}"


def _page(path: str, token: str) -> str:
    since = f"&from={quote(token)}" if token else ""
    return f"{path}/messages?dir=b&limit={PAGE}{since}"
