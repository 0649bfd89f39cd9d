"""Stopping a server: its parts end in reverse order, even if one of them fails."""

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from homeserver.app import Homeserver
from homeserver.observability.metrics import ReactorLag
from homeserver.storage.database.database import Database
from homeserver.streams.counters import CounterReserve
from homeserver.streams.log import Log
from homeserver.web.listeners import CannotListen, Listeners
from homeserver.wiring.accounts.account_services import AccountServices
from homeserver.wiring.federation.federated_rooms import FederatedRooms
from homeserver.wiring.federation.federation import Federation
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.sync import Sync
from tests.support.server import ServerTestCase

ENDINGS = (
    (Listeners, "stop"),
    (Sync, "stop"),
    (FederatedRooms, "stop"),
    (Federation, "stop"),
    (RoomServices, "stop"),
    (AccountServices, "stop"),
    (CounterReserve, "stop"),
    (Log, "flush"),
    (ReactorLag, "stop"),
    (Database, "close"),
)
ORDER = [part.__name__ for part, _ in ENDINGS]


class StoppingTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.stop_server()
        self.ended: list[str] = []
        for part, method in ENDINGS:
            self.patch(part, method, self.recorded(part, getattr(part, method)))

    def recorded(self, part: type, end: Callable[..., Any]) -> Callable[..., Any]:
        """The method that ends a part, which also notes that it was called."""

        def noted(*args: Any) -> Any:
            self.ended.append(part.__name__)
            return end(*args)

        return noted

    async def test_parts_end_after_those_that_use_them(self) -> None:
        """No request meets a part that has ended, and queued changes are written."""
        await self.start_server()

        self.assertTrue(await self.server.stop())

        self.assertEqual(self.ended, ORDER)

    async def test_a_part_that_fails_to_end_keeps_no_other_from_ending(self) -> None:
        """The database is closed, and the operator learns that something was lost."""
        end = Sync.stop

        async def fail(sync: Sync) -> None:
            await end(sync)
            raise ValueError("it cannot end")

        self.patch(Sync, "stop", fail)
        await self.start_server()

        self.assertFalse(await self.server.stop())

        self.assertEqual(self.ended, ORDER)

    async def test_a_start_that_fails_leaves_nothing_behind(self) -> None:
        """A port that is taken leaves no connection to the database open, nor work under way."""

        def fail(_: Listeners) -> None:
            raise CannotListen("the port is taken")

        self.patch(Listeners, "start", fail)
        server = Homeserver(self._settings(), reactor)

        with self.assertRaises(CannotListen):
            await server.start()

        self.assertEqual(self.ended, ORDER)

    async def test_a_start_that_is_interrupted_stops_what_was_started(self) -> None:
        """Ctrl-C during a slow start ends it at once, and the log is written to its end."""
        server = Homeserver(self._settings(), reactor)

        async def take_long(_: Federation) -> None:
            reactor.callLater(0, server.interrupt_start)  # type: ignore[attr-defined]
            await Deferred()

        self.patch(Federation, "start", take_long)

        with self.assertRaises(CancelledError):
            await server.start()

        self.assertEqual(self.ended, ORDER)
