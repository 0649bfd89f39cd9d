"""The last use of each device: time, address and client.

It is recorded in memory with each request, but not more than once in `SAVE_SECONDS`, and written to
the database periodically, in one statement for all devices: the specification allows it to be a few
minutes out of date.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
"""

from typing import Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.accounts.devices import Sighting, update_last_seen
from homeserver.storage.database.database import Database

FLUSH_SECONDS = 60.0
SAVE_SECONDS = 1.0
MAX_AGENT = 200  # characters of a client's `User-Agent`
log = Logger()


class SeenRequest(Protocol):
    """The part of a request that is recorded."""

    @property
    def address(self) -> str:
        """The client's IP address as text, or "" where it has none."""

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None`."""


class _Seen(msgspec.Struct, frozen=True):
    at: float  # seconds since the epoch
    address: str
    agent: str


class LastSeen:
    """Collects sightings of devices. `start` it, and `await stop()` before the database closes."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._flushing = PeriodicTask(
            clock, FLUSH_SECONDS, self.flush, name="storing when devices were last seen"
        )

    def start(self) -> None:
        """Begin to write sightings to the database."""
        self._flushing.start()

    async def stop(self) -> None:
        """Write all sightings, and stop."""
        await self._flushing.stop()
        await self.flush()

    def note(self, user_id: str, device_id: str, request: SeenRequest, now: float) -> None:
        """Record a request of a device, `now` in seconds since the epoch."""
        seen = self._seen.get((user_id, device_id))
        if seen is None or not 0 <= now - seen.at < SAVE_SECONDS:
            agent = _printable(request.header(b"User-Agent") or "")
            self._seen[user_id, device_id] = _Seen(now, request.address, agent)

    def find(self, user_id: str, device_id: str) -> Sighting | None:
        """The newest sighting of a device that may not be stored yet."""
        seen = self._seen.get((user_id, device_id))
        return None if seen is None else _sighting(user_id, device_id, seen)

    async def flush(self) -> None:
        """Write all sightings. Failed ones are recorded again at the next request."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        sightings = [
            _sighting(user_id, device_id, seen[user_id, device_id])
            for user_id, device_id in sorted(seen)
        ]
        try:
            await self._db.run(update_last_seen, sightings)
        except Exception as error:
            log.warn("could not store when devices were last seen: {error}", error=error)


def _sighting(user_id: str, device_id: str, seen: _Seen) -> Sighting:
    return Sighting(user_id, device_id, int(seen.at * 1000), seen.address, seen.agent)


def _printable(agent: str) -> str:
    """A client's `User-Agent`, which may be anything, made fit to be stored and shown."""
    return "".join(filter(str.isprintable, agent[:MAX_AGENT]))
