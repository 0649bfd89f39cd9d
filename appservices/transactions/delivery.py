"""The delivery of transactions to one application service: in order, one at a time.

Items wait in memory, a bounded number. As many as a transaction may have become one, which is
stored before it is sent, and sent until it is acknowledged: unchanged, with the same id, also after
a crash. Then the next one is made of what has come meanwhile. The reader of the log waits while too
many items wait here, and continues from the database later, so an application service that does not
answer needs no memory and harms nobody else.

A WebSocket that the application service has opened is used instead of HTTP.

Spec: https://spec.matrix.org/v1.19/application-service-api/#pushing-events
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from appservices.transactions.items import EventItem, ItemGroup, ToDeviceItem, TransactionItem
from appservices.transactions.transaction_body import TransactionBodies
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.concurrency.deferreds import wait_for_completion
from homeserver.encryption.device_inboxes import DeviceInboxes
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import Unavailable
from homeserver.storage.appservices.transactions import STORE_TRANSACTION, last_transaction
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.streams.log import Log

MAX_WAITING = 400  # groups of items in memory, beside those of the reader
MAX_EVENTS = 100  # of a transaction
MAX_ITEMS = 300
MAX_BYTES = 1_048_576  # of the items of a transaction, beyond the first group
RETRIES = RetrySchedule((0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0))
log = Logger()

Result = TypeVar("Result")


class AppserviceTransactionStored(msgspec.Struct, frozen=True):
    """A transaction of an application service was made or acknowledged. No subscriber needs it."""

    position: int
    appservice_id: str


class AppserviceTransaction(msgspec.Struct, frozen=True):
    """A stored transaction: `body` is its JSON."""

    number: int
    body: bytes

    @property
    def txn_id(self) -> str:
        """Its id for the application service: no two are the same, whatever happens."""
        return str(self.number)


class NotDelivered(Exception):
    """The application service did not acknowledge a transaction."""


class Transport(Protocol):
    """A way to an application service."""

    async def deliver(self, appservice: Appservice, transaction: AppserviceTransaction) -> None:
        """Send a transaction; returns when it is acknowledged. Raises `NotDelivered`."""


class DeliveryContext(msgspec.Struct, frozen=True):
    """What the deliveries of all application services share."""

    appservices: Appservices
    bodies: TransactionBodies
    inboxes: DeviceInboxes
    http: Transport
    log: Log
    db: Database
    clock: Clock


class TransactionDelivery:
    """The transactions of one application service.

    `handle` and `first_unfinished` are for its reader of the log. `load` before the reader starts.
    """

    def __init__(self, appservice_id: str, context: DeliveryContext) -> None:
        self._id = appservice_id
        self._context = context
        self._waiting: deque[ItemGroup] = deque()
        self._making: Sequence[ItemGroup] = ()
        self._taken = 0  # the position up to which groups were taken
        self._room: list[Deferred[None]] = []  # readers that wait until fewer items wait
        self._transaction: AppserviceTransaction | None = None  # the one that is not acknowledged
        self._received: dict[tuple[str, str], int] = {}  # devices, with their last message in it
        self._upto = 0
        self._socket: Transport | None = None
        self._running: Deferred[None] | None = None
        self._is_running = False
        self._is_stopped = False
        self._pause: tuple[Deferred[None], DelayedCall | None] | None = None
        self.failures = 0  # in a row

    @property
    def waiting(self) -> int:
        """The number of groups of items that wait in memory."""
        return len(self._waiting) + len(self._making)

    async def load(self) -> None:
        """Find the transaction that was not acknowledged before the start."""
        row = await self._context.db.run(last_transaction, self._id)
        if row is not None:
            self._upto = self._taken = row.upto
            if row.body is not None:
                self._transaction = AppserviceTransaction(row.number, bytes(row.body))

    def start(self) -> None:
        """Send what was not acknowledged before the start."""
        self._run_on()

    async def stop(self) -> None:
        """Stop sending; what is not acknowledged is sent again after the next start."""
        self._is_stopped = True
        self._make_room()
        if self._running is not None:
            self._running.cancel()
            await wait_for_completion(self._running)

    def handle(self, group: ItemGroup) -> Awaitable[None] | None:
        """Take a group of items; the awaitable, if any, fires when there is room for more.

        One that was taken before is ignored: it is in a transaction from before the start, or the
        reader fell behind and repeats it.
        """
        if group.position <= self._taken:
            return None
        self._taken = group.position
        self._waiting.append(group)
        self._run_on()
        if len(self._waiting) < MAX_WAITING or self._is_stopped:
            return None
        room: Deferred[None] = Deferred()
        self._room.append(room)
        return room

    def first_unfinished(self) -> int | None:
        """The position of the oldest item that is in no stored transaction."""
        if self._making:
            return self._making[0].position
        return self._waiting[0].position if self._waiting else None

    def wake(self) -> None:
        """Try again at once: the application service has just shown that it is there."""
        if self._pause is not None:
            (pause, timer), self._pause = self._pause, None
            if timer is not None and timer.active():
                timer.cancel()
            pause.callback(None)

    def use_socket(self, socket: Transport) -> None:
        """Use a WebSocket from the next transaction on."""
        self._socket = socket
        self.wake()
        self._run_on()

    def socket_closed(self, socket: Transport) -> None:
        """A WebSocket is closed: use HTTP again, if there is a URL."""
        if self._socket is socket:
            self._socket = None

    def _run_on(self) -> None:
        if not (self._is_running or self._is_stopped):
            # A reader that gets room may add an item before `fromCoroutine` returns.
            self._is_running = True
            self._running = Deferred.fromCoroutine(self._run())
            self._running.addErrback(self._failed).addBoth(self._ended)

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopped:
            log.failure("the delivery to {appservice} failed", failure, appservice=self._id)

    def _ended(self, _: object) -> None:
        self._is_running = False
        self._make_room()

    async def _run(self) -> None:
        await self._wait(0.0)  # more groups of the same batch follow
        while not self._is_stopped:
            if self._transaction is None:
                if not self._waiting:
                    return
                await self._make()
            if self._transaction is not None:
                await self._deliver(self._transaction)

    async def _make(self) -> None:
        """Store a transaction of the items that wait."""
        appservice = self._context.appservices.by_id(self._id)
        groups = self._making = self._take()
        items = [item for group in groups for item in group.items]
        self._make_room()
        body = None
        if appservice is not None:
            body = await self._body(appservice, items)
        upto = groups[-1].position
        if body is not None:
            number = await self._until_available(lambda: self._store(upto, body))
            self._transaction = AppserviceTransaction(number, body)
            self._received = {
                (item.user_id, item.device_id): item.position
                for item in items
                if isinstance(item, ToDeviceItem)
            }
        self._upto = upto
        self._making = ()

    async def _body(self, appservice: Appservice, items: Sequence[TransactionItem]) -> bytes | None:
        """The body of the items; one that fails must not keep back all that follow."""
        build = self._context.bodies.build
        try:
            return await self._until_available(lambda: build(appservice, items))
        except CancelledError:
            raise
        except Exception:
            log.failure("a transaction of {appservice} cannot be built", appservice=self._id)
        sound = []
        for item in items:
            try:
                await self._until_available(partial(build, appservice, [item]))
                sound.append(item)
            except CancelledError:
                raise
            except Exception:
                log.error("{item} is left out", item=item)
        return await self._until_available(lambda: build(appservice, sound))

    def _take(self) -> list[ItemGroup]:
        """The groups of the next transaction."""
        taken: list[ItemGroup] = []
        events, items, size = 0, 0, 0
        while self._waiting:
            group = self._waiting[0].items
            events += sum(isinstance(item, EventItem) for item in group)
            items += len(group)
            size += sum(item.size for item in group)
            if taken and (events > MAX_EVENTS or items > MAX_ITEMS or size > MAX_BYTES):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _make_room(self) -> None:
        if len(self._waiting) < MAX_WAITING or self._is_stopped:
            readers, self._room = self._room, []
            for reader in readers:
                reader.callback(None)

    async def _store(self, upto: int, body: bytes | None, number: int | None = None) -> int:
        log = self._context.log
        log.check_open()
        position = log.next_position()
        number = position if number is None else number
        row = STORE_TRANSACTION.row(self._id, number, upto, body)
        await log.append(AppserviceTransactionStored(position, self._id), [row])
        return number

    async def _until_available(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """The result of work that needs the database, as soon as it is there."""
        failures = 0
        while True:
            try:
                return await work()
            except (Unavailable, DatabaseUnavailable):
                failures += 1
                await self._wait(RETRIES.pause(failures))

    async def _deliver(self, transaction: AppserviceTransaction) -> None:
        """Send a transaction until it is acknowledged."""
        while not await self._attempt(transaction):
            pass
        if self.failures:
            log.info("{appservice} takes transactions again", appservice=self._id)
        self.failures = 0
        appservice = self._context.appservices.by_id(self._id)
        if appservice is not None and appservice.receives_encryption:
            for device, position in self._received.items():
                # Others may also be received by `/sync`.
                if appservice.owns_user(device[0]):
                    self._context.inboxes.received(device, position)
        self._received = {}
        self._transaction = None
        acknowledged = Deferred.fromCoroutine(self._store(self._upto, None, transaction.number))
        # Not awaited: if it is lost, the transaction is sent once more, with the same id.
        acknowledged.addErrback(lambda _: None)

    async def _attempt(self, transaction: AppserviceTransaction) -> bool:
        appservice = self._context.appservices.by_id(self._id)
        transport = self._socket
        if transport is None and appservice is not None and appservice.url is not None:
            transport = self._context.http
        if transport is None or appservice is None:
            await self._wait(None)
            return False
        try:
            await transport.deliver(appservice, transaction)
        except CancelledError:
            raise
        except Exception as error:
            if self._is_stopped:
                raise CancelledError from error  # the client gives the cause as a failure
            if not isinstance(error, NotDelivered):
                log.failure("a transaction could not be sent")
            self.failures += 1
            if self.failures == 1:
                log.warn(
                    "{appservice} does not take transaction {txn_id}, trying again: {error}",
                    appservice=self._id,
                    txn_id=transaction.txn_id,
                    error=error,
                )
            if transport is not self._socket and self._socket is not None:
                return False  # a WebSocket was opened meanwhile
            await self._wait(RETRIES.pause(self.failures))
            return False
        return True

    async def _wait(self, seconds: float | None) -> None:
        """Wait for some time, or until `wake`."""
        pause: Deferred[None] = Deferred()
        timer = None
        if seconds is not None:
            timer = self._context.clock.callLater(seconds, self.wake)
        self._pause = pause, timer
        try:
            await pause
        finally:
            if self._pause == (pause, timer):
                self._pause = None
            if timer is not None and timer.active():
                timer.cancel()
