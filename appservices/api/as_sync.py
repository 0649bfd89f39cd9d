"""`fi.mau.as_sync`: the WebSocket on which an application service receives its transactions."""

from typing import TYPE_CHECKING

from appservices.transactions.appservice_transactions import AppserviceTransactions
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.late_imports import Late
from homeserver.protocol.errors import Forbidden
from homeserver.web.routes import Route
from homeserver.web.socket_upgrades import Upgrade

if TYPE_CHECKING:
    from appservices.transactions.socket import AppserviceSocket
    from homeserver.web.websocket import SocketFactory


class AsSyncApi:
    """`end_waits` closes all connections, when the server stops."""

    def __init__(
        self,
        factory: Late["SocketFactory"],
        appservices: Appservices,
        transactions: AppserviceTransactions,
        clock: Clock,
    ) -> None:
        appservices.subscribe(self._close_former)
        self._appservices = appservices
        self._factory = factory
        self._transactions = transactions
        self._clock = clock
        self._sockets: dict[str, AppserviceSocket] = {}

    def routes(self) -> list[Route]:
        path = "/_matrix/client/unstable/fi.mau.as_sync"
        return [Route("GET", path, self.as_sync, websocket=True)]

    async def as_sync(self, caller: Requester) -> Upgrade:
        """Open the WebSocket of an application service, in place of an earlier one."""
        if caller.appservice is None:
            raise Forbidden("Only application services receive transactions")
        # What happens from now on is for it: the first factory takes a fifth of a second to import.
        delivery = await self._transactions.delivery_for_socket(caller.appservice)
        factory = await self._factory.get()
        from appservices.transactions.socket import AppserviceSocket  # imported for the factory

        socket = AppserviceSocket(caller.appservice, delivery, self._clock, self)
        return Upgrade(factory, socket)

    def opened(self, socket: "AppserviceSocket") -> None:
        """A connection is open: it replaces an earlier one of its application service."""
        former = self._sockets.get(socket.appservice_id)
        self._sockets[socket.appservice_id] = socket
        if former is not None:
            former.close_as_replaced()
        self._close_former()

    def closed(self, socket: "AppserviceSocket") -> None:
        """A connection is closed."""
        if self._sockets.get(socket.appservice_id) is socket:
            del self._sockets[socket.appservice_id]

    def _close_former(self) -> None:
        """Close the connections of application services that are not registered any more."""
        for appservice_id, socket in list(self._sockets.items()):
            if self._appservices.by_id(appservice_id) is None:
                socket.close_as_replaced()

    def end_waits(self) -> None:
        """Close all connections: the server stops."""
        for socket in list(self._sockets.values()):
            socket.close_for_restart()
