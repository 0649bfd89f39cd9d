"""The notary: tells what other servers publish about their keys, with a signature of this one.

It passes on what it has for as long as that is good for who asks, and refreshes it when half of its
life is over. A server that cannot be reached is answered for by the last that it said; a key that
it no longer names is told by the answer that named it last.

Spec: https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from federation.keys.key_fetching import KeyFetcher
from federation.keys.key_store import KeyStore
from federation.keys.own_keys import OwnKeys
from homeserver.concurrency.clock import wall_seconds
from homeserver.protocol.errors import InvalidParam, LimitExceeded
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.storage.federation.server_keys import StoredResponse

MAX_SERVERS = 100  # in one question
MAX_RESPONSES = 10  # about one server

Criteria = Mapping[str, int | None]  # key id, and until when the answer should be valid


class Notary:
    def __init__(
        self, clock: IReactorTime, own: OwnKeys, store: KeyStore, fetcher: KeyFetcher
    ) -> None:
        self._clock = clock
        self._own = own
        self._store = store
        self._fetcher = fetcher

    async def query(
        self,
        wanted: Mapping[str, Criteria],
        *,
        address: str = "",
        valid_until: int | None = None,
    ) -> list[Mapping[str, Any]]:
        """The signed answers about these keys, or about all keys of a server that none is named of.

        `address` is where the question came from. Times are milliseconds since the epoch;
        `valid_until` is for those without one, and is now where nobody says. Servers of which
        nothing is known are left out. Raises `InvalidParam`.
        """
        if len(wanted) > MAX_SERVERS:
            raise InvalidParam(f"Ask for at most {MAX_SERVERS} servers at once")
        for server_name in wanted:
            if not is_valid_server_name(server_name):
                raise InvalidParam(f"{server_name!r} is not a server name")
        default = self._now_ms() if valid_until is None else valid_until
        found = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self._about(
                        server_name,
                        {key: default if ts is None else ts for key, ts in criteria.items()},
                        default,
                        address,
                    )
                )
                for server_name, criteria in wanted.items()
            ],
            consumeErrors=True,
        )
        return [answer for answers in found for answer in answers]

    async def _about(
        self, server_name: str, criteria: Mapping[str, int], default: int, address: str
    ) -> list[Mapping[str, Any]]:
        if server_name == self._own.server_name:
            return [self._own.published()]
        known = await self._store.responses(server_name)
        if self._is_stale(known, criteria, default):
            # A key that is needed is worth a try, at the pace of the fetcher.
            # Where too many wait, what is known has to do.
            with suppress(LimitExceeded):
                await self._fetcher.from_origin(server_name, despite_backoff=True, address=address)
            known = await self._store.responses(server_name)
        chosen = _choose(known, criteria)
        return [self._own.sign(msgspec.json.decode(response)) for response in chosen]

    def _is_stale(
        self, known: Sequence[StoredResponse], criteria: Mapping[str, int], default: int
    ) -> bool:
        """Whether something that is wanted is missing, or should be fetched anew."""
        if not criteria:
            return not known or self._is_too_old(known[0], default)
        by_key = {response.key_id: response for response in known}
        return any(
            key_id not in by_key or self._is_too_old(by_key[key_id], ts)
            for key_id, ts in criteria.items()
        )

    def _is_too_old(self, response: StoredResponse, valid_until: int) -> bool:
        now, end = self._now_ms(), response.response_valid_until_ts
        if end < valid_until:
            return True
        # What has expired and is still good enough is asked for the sake of the past.
        return now < end and now - response.fetched_ts > end - now

    def _now_ms(self) -> int:
        return int(wall_seconds(self._clock) * 1000)


def _choose(known: Sequence[StoredResponse], criteria: Mapping[str, int]) -> list[bytes]:
    """The answers that tell of the wanted keys, or of all, each once, the newest first."""
    wanted = [one for one in known if one.key_id in criteria] or list(known)
    return list(dict.fromkeys(one.response for one in wanted))[:MAX_RESPONSES]
