"""Finding and claiming keys of remote users for local clients.

What is stored and current is answered from here. For the rest all servers are asked at the same
time, and the answer has what came in time. A server that gave nothing is in `failures`, and then a
stale list is not shown in its place: a client would take a device that was removed, perhaps because
it was stolen, for a current one. Without it, clients keep what they know and ask again later.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
"""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import TimedOut, with_timeout
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.remote.remote_keys_port import KeysUnavailable, RemoteKeysPort
from homeserver.encryption.remote.remote_list_fetcher import RemoteListFetcher
from homeserver.encryption.remote.remote_list_resync import RemoteListResync
from homeserver.encryption.remote.remote_list_store import shown_devices
from homeserver.encryption.remote.shared_users import SharedUsers
from homeserver.encryption.user_devices import UserDevices
from homeserver.protocol.identifiers import is_valid_user_id

MAX_FETCHED = 20  # lists of one server that a query waits for; for more, one request asks for all
MAX_SERVERS = 500  # that are asked at the same time
MAX_SERVERS_OF_USER = 250
MAX_WAITING = 20_000
MAX_SECONDS = 30.0  # that a client may wait


class RemoteAnswer(msgspec.Struct):
    """What was found, by user id, and the servers that gave nothing, each with the reason."""

    users: dict[str, UserDevices] = msgspec.field(default_factory=dict)
    keys: dict[str, Mapping[str, Mapping[str, msgspec.Raw]]] = msgspec.field(default_factory=dict)
    failures: dict[str, Any] = msgspec.field(default_factory=dict)


class RemoteKeyQueries:
    """Asks for keys of remote users."""

    def __init__(
        self,
        clock: Clock,
        directory: DeviceDirectory,
        shared: SharedUsers,
        fetcher: RemoteListFetcher,
        resync: RemoteListResync,
        remote: RemoteKeysPort,
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._shared = shared
        self._fetcher = fetcher
        self._resync = resync
        self._remote = remote
        self._slots = FairSlots(
            MAX_SERVERS,
            share=MAX_SERVERS_OF_USER,
            max_waiting=MAX_WAITING,
            max_waiting_in_all=MAX_WAITING,
        )

    async def query(
        self, asker: str, wanted: Mapping[str, Sequence[str]], seconds: float
    ) -> RemoteAnswer:
        """The devices of remote users, as far as they are known within some seconds."""
        valid = [user_id for user_id in wanted if is_valid_user_id(user_id)]
        answer = RemoteAnswer()
        for user_id, known in (await self._directory.of_all(valid)).items():
            if known.is_current:
                answer.users[user_id] = known
        missing = [user_id for user_id in valid if user_id not in answer.users]
        if missing:
            shared = await self._shared.fully_shared(missing)

            async def ask(server: str, user_ids: Sequence[str]) -> None:
                some = {each: wanted[each] for each in user_ids}
                await self._query_server(server, some, shared, answer)

            await self._ask_all(asker, _by_server(missing), ask, seconds, answer)
        return answer

    async def claim(
        self, asker: str, claims: Mapping[str, Mapping[str, str]], seconds: float
    ) -> RemoteAnswer:
        """A key for each claim, algorithm by user id and device id, that comes in time."""
        answer = RemoteAnswer()
        valid = [user_id for user_id in claims if claims[user_id] and is_valid_user_id(user_id)]

        async def ask(server: str, user_ids: Sequence[str]) -> None:
            some = {each: claims[each] for each in user_ids}
            answer.keys.update(await self._remote.claim(server, some))

        await self._ask_all(asker, _by_server(valid), ask, seconds, answer)
        return answer

    async def _query_server(
        self,
        server: str,
        wanted: Mapping[str, Sequence[str]],
        shared: Collection[str],
        answer: RemoteAnswer,
    ) -> None:
        """Add the users of one server: the lists of those who share a room are fetched and stored.

        Raises `KeysUnavailable`, after all that could be found was added.
        """
        to_fetch = [user_id for user_id in wanted if user_id in shared]
        if len(to_fetch) > MAX_FETCHED:
            for user_id in to_fetch:
                self._resync.begin(user_id)
            to_fetch = []
        passed_on = {each: ids for each, ids in wanted.items() if each not in to_fetch}
        requests = [self._fetch(user_id, answer) for user_id in to_fetch]
        if passed_on:
            requests.append(self._pass_on(server, passed_on, answer))
        await _all_of(requests)

    async def _fetch(self, user_id: str, answer: RemoteAnswer) -> None:
        answer.users[user_id] = await self._fetcher.fetch(user_id)

    async def _pass_on(
        self, server: str, wanted: Mapping[str, Sequence[str]], answer: RemoteAnswer
    ) -> None:
        for user_id, keys in (await self._remote.query(server, wanted)).items():
            answer.users[user_id] = shown_devices(user_id, keys)

    async def _ask_all(
        self,
        asker: str,
        servers: Mapping[str, Sequence[str]],
        ask: Callable[[str, Sequence[str]], Awaitable[None]],
        seconds: float,
        answer: RemoteAnswer,
    ) -> None:
        """Ask all servers at the same time, and note those that fail or are too slow."""
        until = self._clock.seconds() + max(0.0, min(seconds, MAX_SECONDS))

        async def ask_one(server: str, user_ids: Sequence[str]) -> None:
            try:
                left = max(0.0, until - self._clock.seconds())
                await with_timeout(self._in_slot(asker, ask, server, user_ids), left, self._clock)
            except KeysUnavailable as error:
                answer.failures[server] = {"status": error.status, "message": error.reason}
            except (TimedOut, QueueFull):
                message = f"{server} did not respond in time"
                answer.failures[server] = {"status": 503, "message": message}

        await _all_of([ask_one(*each) for each in servers.items()])

    async def _in_slot(
        self,
        asker: str,
        ask: Callable[[str, Sequence[str]], Awaitable[None]],
        server: str,
        user_ids: Sequence[str],
    ) -> None:
        async with self._slots.slot(asker):
            await ask(server, user_ids)


def _by_server(user_ids: Iterable[str]) -> dict[str, list[str]]:
    servers: dict[str, list[str]] = {}
    for user_id in user_ids:
        servers.setdefault(user_id.partition(":")[2], []).append(user_id)
    return servers


async def _all_of(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines concurrently; raises the error of the first that failed, after all ended."""
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    outcomes: list[tuple[bool, Any]] = await DeferredList(running, consumeErrors=True)
    for succeeded, outcome in outcomes:
        if not succeeded:
            outcome.raiseException()
