"""The measures of growth: `python -m benchmarks growth`.

Everything is made through the HTTP API, and what there is grows by ten from step to step. The cost
is the CPU time of the server's process without its database's, so that it depends little on what
else the machine does.
"""

import itertools
import json
import time
from collections.abc import Callable
from urllib.parse import quote

from benchmarks.growth.curves import Curve
from benchmarks.load.loop import HttpConnection, LoadFailed, Script, fetch_all, request
from benchmarks.load.population import (
    CLIENT,
    Account,
    Population,
    poll,
    post,
    take_next_batch,
)
from benchmarks.load.processes import cpu_seconds
from tests.clients.plain_client import password_of

LAZY = {"room": {"state": {"lazy_load_members": True}}, "presence": {"types": []}}
CPU_ENOUGH = 0.3  # seconds that are measured; the kernel counts in hundredths
MAX_SECONDS = 15.0
WARM_UP = 5
OWNERS = 20
SENDERS = 64


class Meter:
    """Measures the CPU time of a server for what its clients do."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._connection = HttpConnection(population.loop, population.server.port)

    def get(self, wanted: bytes) -> bytes:
        """Make a request, and wait for the body of the response."""
        bodies: list[bytes] = []

        def script() -> Script:
            status, body = yield wanted
            if status != 200:
                raise LoadFailed(f"{wanted[:200]!r}: {status} {body[:300]!r}")
            bodies.append(body)

        self._connection.run(script())
        if not self._population.loop.run(lambda: not self._connection.busy, MAX_SECONDS):
            raise LoadFailed(f"{wanted[:200]!r} has no response")
        return bodies[0]

    def cost(self, act: Callable[[], object]) -> float:
        """CPU seconds of the server for each time that something is done, one after the other."""
        for _ in range(WARM_UP):
            act()
        pids = [self._population.server.pid]
        count, before, start = 0, cpu_seconds(pids), time.perf_counter()
        while True:
            act()
            count += 1
            used = cpu_seconds(pids) - before
            if used >= CPU_ENOUGH or time.perf_counter() - start > MAX_SECONDS:
                return used / count


def sizes(most: int) -> list[int]:
    """10, 100, … up to `most`."""
    return [10**power for power in range(1, 9) if 10**power <= most]


def by_members(population: Population, most: int) -> list[Curve]:
    """A room with more and more members, none of whom is connected."""
    message, listing = Curve("members", "a message", 0), Curve("members", "the list of members", 1)
    joining = Curve("members", "a join and a leave", 0)
    sync = Curve("members", "a lazily loaded sync", 0)
    meter = Meter(population)
    owner, joiner = population.accounts(2)
    room = population.rooms([owner])[0]
    path, count = f"{CLIENT}/rooms/{quote(room)}", 1
    come = post(f"{CLIENT}/join/{quote(room)}", joiner.token, {})
    go = post(f"{path}/leave", joiner.token, {})
    members = request("GET", f"{path}/members", owner.token)
    for size in sizes(most):
        newcomers = population.accounts(size - count)
        population.join([(newcomer, room) for newcomer in newcomers])
        count = size
        message.add(size, meter.cost(lambda: meter.get(population.message(owner, room))))
        joining.add(size, meter.cost(lambda: (meter.get(come), meter.get(go))))
        listing.add(size, meter.cost(lambda: meter.get(members)))
        sync.add(size, meter.cost(lambda: meter.get(_initial_sync(owner))))
    return [message, joining, sync, listing]


def by_rooms(population: Population, most: int) -> list[Curve]:
    """An account in more and more rooms."""
    update = Curve("rooms of an account", "a message and the sync that has it", 0)
    whole = Curve("rooms of an account", "an initial sync, lazily loaded", 1)
    meter = Meter(population)
    owners, reader = population.accounts(OWNERS), population.accounts(1)[0]
    rooms: list[tuple[Account, str]] = []
    for size in sizes(most):
        turn = list(itertools.islice(itertools.cycle(owners), size - len(rooms)))
        made = list(zip(turn, population.rooms(turn), strict=True))
        population.join([(reader, room) for _, room in made])
        rooms += made
        population.sync([reader])
        update.add(size, meter.cost(_Updates(population, meter, rooms, reader)))
        whole.add(size, meter.cost(lambda: meter.get(_initial_sync(reader))))
    return [update, whole]


class _Updates:
    """A message in one room after the other, each with the sync of a reader that has it."""

    def __init__(
        self, population: Population, meter: Meter, rooms: list[tuple[Account, str]], to: Account
    ) -> None:
        self._population = population
        self._meter = meter
        # Not the oldest rooms only: a cache that is too small shows itself.
        self._rooms = itertools.cycle(rooms[:: max(1, len(rooms) // 97)])
        self._reader = to

    def __call__(self) -> None:
        self._meter.get(self._population.message(*next(self._rooms)))
        take_next_batch(self._reader, self._meter.get(poll(self._reader, 0)))


def _initial_sync(account: Account) -> bytes:
    return request("GET", f"{CLIENT}/sync?filter={quote(json.dumps(LAZY))}", account.token)


def by_events(population: Population, most: int) -> list[Curve]:
    """A room with a longer and longer history."""
    message = Curve("events of a room", "a message", 0)
    page = Curve("events of a room", "a page of 100 at either end", 0)
    meter = Meter(population)
    members = population.accounts(SENDERS)
    room = population.group(members)
    path, count, turn = f"{CLIENT}/rooms/{quote(room)}", 0, itertools.cycle(members)
    ends = itertools.cycle(
        request("GET", f"{path}/messages?dir={way}&limit=100", members[0].token) for way in "fb"
    )
    for size in sizes(most):
        sends = [population.message(next(turn), room) for _ in range(size - count)]
        fetch_all(population.loop, population.server.port, sends, SENDERS)
        count = size
        message.add(size, meter.cost(lambda: meter.get(population.message(members[0], room))))
        page.add(size, meter.cost(lambda: meter.get(next(ends))))
    return [message, page]


def by_devices(population: Population, most: int) -> list[Curve]:
    """A user with more and more devices."""
    message = Curve("devices of a user", "a message to the user", 0)
    to_all = Curve("devices of a user", "a to-device message to all", 1)
    meter = Meter(population)
    user, friend = population.accounts(2)
    room, count = population.group([friend, user]), 1
    numbers = itertools.count()
    log_in = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": password_of(user.user_id[1:].partition(":")[0]),
    }
    to_device = json.dumps({"messages": {user.user_id: {"*": {"body": "hello"}}}}).encode()

    def send_to_all() -> None:
        path = f"{CLIENT}/sendToDevice/org.example.note/{next(numbers)}"
        meter.get(request("PUT", path, friend.token, to_device))

    for size in sizes(most):
        population.fetch([post(f"{CLIENT}/login", None, log_in)] * (size - count))
        count = size
        message.add(size, meter.cost(lambda: meter.get(population.message(friend, room))))
        to_all.add(size, meter.cost(send_to_all))
    return [message, to_all]
