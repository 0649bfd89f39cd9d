"""Large responses: the time they take, and the latency of other requests meanwhile.

The target of a response is scaled by its bytes from that of the initial sync of a hundred rooms
(0.71 MiB within 100 ms); a small one may take `SMALL_MS` in any case. While it is built and sent,
another user sends one message after the other to a room of their own: the reactor serves both, so
their latency is how long one request may delay all others.
"""

import statistics
import time
from collections.abc import Sequence

from benchmarks.load.figures import Figure
from benchmarks.load.loop import HttpConnection, LoadFailed, Script, request
from benchmarks.load.population import Account, Population

MS_PER_MIB = 100 / 0.71
SMALL_MS = 10.0
WAIT_MS = 50.0  # that 99 % of the others' messages may take
PAUSE_SECONDS = 0.004
REPEATS = 7
ALONE = 200  # messages


class Bystander:
    """A user who sends a message every few milliseconds, in a room of their own."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._account = population.accounts(1)[0]
        self._room = population.rooms([self._account])[0]
        self._connection = HttpConnection(population.loop, population.server.port)
        self.latencies: list[float] = []

    def send_if_idle(self) -> None:
        """Send the next message, unless the last one is under way."""
        if not self._connection.busy:
            self._connection.run(self._send())

    def finish(self) -> None:
        """Wait for the last response."""
        self._population.loop.run(lambda: not self._connection.busy, 10)

    def leave(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self) -> Script:
        start = time.perf_counter()
        status, body = yield self._population.message(self._account, self._room)
        if status != 200:
            raise LoadFailed(f"{status} {body[:300]!r}")
        self.latencies.append(time.perf_counter() - start)


class LargeResponses:
    """Times responses while a bystander sends messages, and collects the figures."""

    def __init__(self, population: Population) -> None:
        self._figures: list[Figure] = []
        self._population = population
        self._bystander = Bystander(population)

    def finish(self) -> list[Figure]:
        """The rows; no request can be timed afterwards."""
        self._bystander.leave()
        return self._figures

    def time_messages_alone(self) -> None:
        """Add a row with the messages alone, to which the others are compared."""
        self._bystander.latencies.clear()
        for _ in range(ALONE):
            self._bystander.send_if_idle()
            self._population.loop.run_for(PAUSE_SECONDS)
        self._bystander.finish()
        self._figures.append(self._wait("a message without other load, 99 %"))

    def get(self, name: str, caller: Account, path: str, *, note: str = "") -> bytes:
        """Time a GET several times; returns the body."""
        return self.time(name, [request("GET", path, caller.token)] * REPEATS, note=note)[-1]

    def time(self, name: str, requests: Sequence[bytes], *, note: str = "") -> list[bytes]:
        """Time requests, one after the other, and add a row with the median; returns the bodies."""
        bystander = self._bystander
        bystander.latencies.clear()
        seconds, bodies = [], []
        for wanted in requests:
            start = time.perf_counter()
            bodies.append(self._fetch(wanted))
            seconds.append(time.perf_counter() - start)
        bystander.finish()
        self._add(name, seconds, max(map(len, bodies)), note)
        return bodies

    def _add(self, name: str, seconds: list[float], size: int, note: str) -> None:
        mib = size / 2**20
        shown = f"{mib:.2f} MiB" if mib >= 0.01 else f"{size} bytes"
        notes = [shown, f"the first {seconds[0] * 1000:.0f} ms", *([note] if note else [])]
        limit = max(SMALL_MS, mib * MS_PER_MIB)
        median = statistics.median(seconds) * 1000
        self._figures.append(Figure(name, median, "ms", limit, at_most=True, note=", ".join(notes)))
        self._figures.append(self._wait("… a message meanwhile, 99 %"))

    def _wait(self, name: str) -> Figure:
        waits = sorted(self._bystander.latencies)
        wait = waits[min(len(waits) - 1, round(len(waits) * 0.99))] * 1000
        note = f"of {len(waits)}, median {statistics.median(waits) * 1000:.1f} ms"
        return Figure(name, wait, "ms", WAIT_MS, at_most=True, note=note)

    def _fetch(self, wanted: bytes) -> bytes:
        loop, port = self._population.loop, self._population.server.port
        connection, bodies = HttpConnection(loop, port), []

        def script() -> Script:
            status, body = yield wanted
            if status != 200:
                raise LoadFailed(f"{wanted[:200]!r}: {status} {body[:300]!r}")
            bodies.append(body)

        connection.run(script())
        while connection.busy:
            self._bystander.send_if_idle()
            loop.run(lambda: not connection.busy, PAUSE_SECONDS)
        connection.close()
        return bodies[0]
