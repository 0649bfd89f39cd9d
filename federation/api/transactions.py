"""Transactions: the events and ephemeral data that another server sends.

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

MAX_BODY = 10 * 1_048_576  # bytes: fifty events of the largest size, and a hundred others
MAX_CACHED_TRANSACTIONS = 1_000  # transactions, of all servers together


class Transaction(msgspec.Struct):
    """Events, and ephemeral data; each is decoded by itself, as any may be malformed."""

    pdus: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=50)] = []
    edus: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=100)] = []


class TransactionsApi:
    def __init__(self, clock: Clock, inbox: IncomingQueue, edus: EduDispatcher) -> None:
        self._clock = clock
        self._queue = inbox
        self._edus = edus
        self._responses: LruCache[tuple[str, str], dict[str, Any]] = LruCache(
            "federation_transactions", MAX_CACHED_TRANSACTIONS
        )
        self._receiving: KeyedLocks[tuple[str, str]] = KeyedLocks()

    def routes(self) -> list[Route]:
        path = f"{V1}/send/{{txn_id}}"
        return [Route("PUT", path, self.send_transaction, Auth.SERVER, max_body=MAX_BODY)]

    async def send_transaction(self, origin: str, txn_id: str, body: bytes) -> dict[str, Any]:
        """Take a `Transaction` in; one that comes again has the same answer, and no effect."""
        transaction = await decode_body(self._clock, Transaction, body)
        key = (origin, txn_id)
        async with self._receiving.hold(key):
            answer = self._responses.get(key)
            if answer is None:
                answer = {"pdus": await self._queue.put(origin, transaction.pdus)}
                await self._edus.receive(origin, transaction.edus)
                self._responses.put(key, answer)
        return answer
