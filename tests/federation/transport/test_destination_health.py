"""The reachability of servers, kept across restarts."""

from twisted.internet import reactor
from twisted.internet.task import Clock

from federation.transport.destination_health import WRITE_AFTER, DestinationHealth
from federation.transport.errors import BackingOff
from homeserver.protocol.errors import Unavailable
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until


class DestinationTests(DatabaseTestCase):
    async def test_failures_are_stored_and_successes_deleted(self) -> None:
        """A start does not send a flood of requests to unreachable servers."""
        before = DestinationHealth(self.db, reactor)
        for server in ("away.example", "back.example"):
            before.failed(server)
        before.succeeded("back.example")
        before.succeeded("fine.example")
        await before.stop()

        after = DestinationHealth(self.db, reactor)
        await after.load()

        self.assertEqual(after.health_of("away.example"), before.health_of("away.example"))
        self.assertRaises(BackingOff, after.check, "away.example")
        for server in ("back.example", "fine.example", "new.example"):
            after.check(server)

    async def test_queued_messages_are_sent_when_the_server_is_back(self) -> None:
        """At once, whether it sends a request or responds to any."""
        destinations = DestinationHealth(self.db, reactor)
        alive: list[str] = []
        destinations.subscribe(alive.append)
        for server in ("heard.example", "answers.example"):
            destinations.failed(server)

        destinations.received_from("heard.example")
        destinations.succeeded("answers.example")
        destinations.succeeded("answers.example")
        destinations.succeeded("fine.example")
        await destinations.stop()

        self.assertEqual(alive, ["heard.example", "answers.example"])

    async def test_successes_are_not_written_each_time(self) -> None:
        """A busy federation does not keep the database busy."""
        destinations = DestinationHealth(self.db, reactor)
        destinations.succeeded("fine.example")
        await destinations.stop()
        runs = self.db.runs

        for _ in range(100):
            destinations.succeeded("fine.example")
            destinations.received_from("fine.example")
        await destinations.stop()

        self.assertEqual(self.db.runs, runs)

    async def test_writing_continues_after_an_error(self) -> None:
        """The first immediate error of the database once ended all writing."""
        clock = Clock()
        destinations = DestinationHealth(self.db, clock)
        run = self.db.run
        self.patch(self.db, "run", _refuse)
        destinations.failed("away.example")
        clock.advance(WRITE_AFTER)

        self.patch(self.db, "run", run)
        destinations.failed("away.example")
        destinations.failed("other.example")
        clock.advance(WRITE_AFTER)
        await until(lambda: destinations._writing is None)

        after = DestinationHealth(self.db, clock)
        await after.load()
        self.assertRaises(BackingOff, after.check, "other.example")


async def _refuse(*_: object) -> None:
    raise Unavailable("away")
