"""Transactions: the PDUs and EDUs that another server sends.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from typing import Annotated, Any

import msgspec

from federation.paths import V1
from federation.receiving.edus import EduDispatcher
from federation.receiving.pdu_queue import IncomingQueue
from federation.transport.lenient_lists import decode_body
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.web.routes import Auth, Route

MAX_BODY = 10 * 1_048_576  # bytes: 50 events of the maximum size, and 100 EDUs
MAX_CACHED_TRANSACTIONS = 1_000  # transactions, of all servers together


class Transaction(msgspec.Struct):
    """PDUs and EDUs; each is decoded alone, as any may be malformed."""

    pdus: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=50)] = []
    edus: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=100)] = []


class TransactionsApi:
    def __init__(self, clock: Clock, queue: IncomingQueue, edus: EduDispatcher) -> None:
        self._clock = clock
        self._queue = queue
        self._edus = edus
        self._responses: LruCache[tuple[str, str], dict[str, Any]] = LruCache(
            "federation_transactions", MAX_CACHED_TRANSACTIONS
        )
        self._receiving: KeyedLocks[tuple[str, str]] = KeyedLocks()

    def routes(self) -> list[Route]:
        path = f"{V1}/send/{{txn_id}}"
        return [Route("PUT", path, self.send_transaction, Auth.SERVER, max_body=MAX_BODY)]

    async def send_transaction(self, origin: str, txn_id: str, body: bytes) -> dict[str, Any]:
        """Receive a `Transaction`; a repeated one gets the same response, and has no effect."""
        transaction = await decode_body(self._clock, Transaction, body)
        key = (origin, txn_id)
        async with self._receiving.hold(key):
            response = self._responses.get(key)
            if response is None:
                response = {"pdus": await self._queue.put(origin, transaction.pdus)}
                await self._edus.receive(origin, transaction.edus)
                self._responses.put(key, response)
        return response
