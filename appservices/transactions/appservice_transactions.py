"""The transactions of all application services: a durable reader and a delivery for each of them.

An application service without a URL has them from the moment that it first opens a WebSocket.
"""

from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.delivery import DeliveryContext, TransactionDelivery
from appservices.transactions.items import ItemGroup
from appservices.transactions.room_interest import RoomInterest
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import UnknownToken
from homeserver.storage.appservices.transactions import finish_move, requested_moves
from homeserver.storage.database.database import Connection
from homeserver.storage.database.reader_positions import reader_position, set_reader_position
from homeserver.streams.durable_reader import DurableReader, ItemSource
from homeserver.streams.durable_readers import DurableReaders

log = Logger()

MakeSource = Callable[[str], ItemSource[ItemGroup]]  # by id of the application service


class _Worker(msgspec.Struct, frozen=True):
    delivery: TransactionDelivery
    reader: DurableReader[ItemGroup]


class AppserviceTransactions:
    """Starts and stops what sends transactions. `load` before the readers of the log."""

    def __init__(
        self,
        context: DeliveryContext,
        readers: DurableReaders,
        make_source: MakeSource,
        aliases: AliasInterest,
        interest: RoomInterest,
    ) -> None:
        self._context = context
        self._readers = readers
        self._make_source = make_source
        self._aliases = aliases
        self._interest = interest
        self._workers: dict[str, _Worker] = {}
        self._changing: KeyedLocks[None] = KeyedLocks()

    async def load(self) -> None:
        """Find where each application service continues."""
        await self._aliases.load()
        await self._move()
        for each in self._context.appservices.all:
            if await self._is_wanted(each):
                await self._add(each.id)

    def start(self) -> None:
        """Begin to send."""
        for worker in self._workers.values():
            worker.delivery.start()

    async def stop(self) -> None:
        """Stop sending, before the readers."""
        for worker in self._workers.values():
            await worker.delivery.stop()

    async def reload(self) -> None:
        """Begin with application services that are new, and end with those that are gone.

        Moves that an administrator has requested are made.
        """
        async with self._changing.hold(None):
            await self._aliases.load()
            await self._move()
            for appservice_id in list(self._workers):
                if self._context.appservices.by_id(appservice_id) is None:
                    await self._remove(appservice_id)
            for each in self._context.appservices.all:
                if each.id not in self._workers and await self._is_wanted(each):
                    await self._begin(each.id)
            for worker in self._workers.values():
                worker.delivery.wake()

    async def delivery_for_socket(self, appservice_id: str) -> TransactionDelivery:
        """The delivery of an application service that opens a WebSocket.

        Raises `UnknownToken` if it is not registered any more.
        """
        async with self._changing.hold(None):
            if self._context.appservices.by_id(appservice_id) is None:
                raise UnknownToken("The application service is not registered any more")
            if appservice_id not in self._workers:
                await self._begin(appservice_id)
            return self._workers[appservice_id].delivery

    def wake(self, appservice_id: str) -> None:
        """Try again at once: the application service has just shown that it is there."""
        worker = self._workers.get(appservice_id)
        if worker is not None:
            worker.delivery.wake()

    async def _move(self) -> None:
        """Make the requested moves; those that are moved have no worker afterwards."""
        db = self._context.db
        for appservice_id, position in (await db.run(requested_moves)).items():
            if appservice_id in self._workers:
                await self._remove(appservice_id)
            upto = self._context.log.position if position is None else position
            await db.transaction(_move_to, appservice_id, upto)
            log.info("{appservice} continues at another position", appservice=appservice_id)

    async def _is_wanted(self, appservice: Appservice) -> bool:
        if appservice.url is not None:
            return True
        stored = await self._context.db.run(reader_position, reader_name(appservice.id))
        return stored is not None

    async def _add(self, appservice_id: str) -> _Worker:
        delivery = TransactionDelivery(appservice_id, self._context)
        await delivery.load()
        reader = self._readers.add(
            reader_name(appservice_id),
            self._make_source(appservice_id),
            delivery.handle,
            delivery.first_unfinished,
        )
        worker = self._workers[appservice_id] = _Worker(delivery, reader)
        self._interest.set_receivers(self._workers)
        return worker

    async def _begin(self, appservice_id: str) -> None:
        worker = await self._add(appservice_id)
        await self._readers.begin(worker.reader)
        worker.delivery.start()

    async def _remove(self, appservice_id: str) -> None:
        worker = self._workers.pop(appservice_id)
        self._interest.set_receivers(self._workers)
        # The reader may be waiting for the delivery.
        await worker.delivery.stop()
        await self._readers.remove(worker.reader)


async def _move_to(db: Connection, appservice_id: str, position: int) -> None:
    await set_reader_position(db, reader_name(appservice_id), position)
    await finish_move(db, appservice_id)


def reader_name(appservice_id: str) -> str:
    """The name of the durable reader of an application service."""
    return f"appservice {appservice_id}"
