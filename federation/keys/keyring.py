"""The keyring: whether other servers have signed what they are said to have signed.

A key that is not at hand, or whose validity ends before the time in question, is fetched from its
server, and then from notaries. Signatures with keys that nobody can get are as good as none.

Spec: https://spec.matrix.org/v1.19/server-server-api/#authentication
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.internet.interfaces import IReactorTime

from federation.keys.key_fetching import FOR_EVENTS, KeyFetcher
from federation.keys.key_store import KeyStore
from federation.keys.own_keys import OwnKeys
from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.authorization.auth_rules import required_signers
from homeserver.protocol.events import Event
from homeserver.protocol.policy_servers import KEY_ID as POLICY_KEY_ID
from homeserver.protocol.signing.server_keys import MAX_VALIDITY_MS, VerifyKey
from homeserver.protocol.signing.signatures import (
    BadSignature,
    signature_key_ids,
    verify_event_signature,
    verify_signed_json,
)

MAX_SIGNATURES = 20  # of one server on one object; none has more than two or three
ANY_TIME = 0  # for rooms in which keys do not become invalid

Wanted = dict[str, dict[str, int]]  # server, key id, time up to which the key must be valid


class KeyUnavailable(BadSignature):
    """None of the keys of a signature could be had, or none was valid at the time."""


class Keyring:
    """Verifies signatures of servers, those of this one included."""

    def __init__(
        self, clock: IReactorTime, own: OwnKeys, store: KeyStore, fetcher: KeyFetcher
    ) -> None:
        self.clock = clock
        self._own = own
        self._store = store
        self._fetcher = fetcher

    async def verify_json(
        self,
        server_name: str,
        value: Mapping[str, Any],
        at_ts: int | None = None,
        *,
        content: bytes | None = None,
        despite_backoff: bool = False,
        address: str = FOR_EVENTS,
    ) -> None:
        """Check that a server signed an object, with a key that is valid `at_ts`, or now.

        `content` is a member of that name which the object has besides, as its canonical JSON.
        `despite_backoff`: fetch keys although the server failed lately, as when the object has
        just come from it. `address`: from where it came, if that may be anybody. Raises
        `BadSignature`, `KeyUnavailable` among them, and `LimitExceeded` where too many such
        objects wait for keys.
        """
        ts = self._now_ms() if at_ts is None else at_ts
        key_ids = _signing_key_ids(value, server_name)
        wanted = {server_name: dict.fromkeys(key_ids, ts)}
        await self._fetch_missing(wanted, despite_backoff=despite_backoff, address=address)
        keys = self._usable(server_name, key_ids, ts)
        for key in keys:
            verify_signed_json(value, server_name, key.key_id, key.verify_key, content=content)

    async def verify_events(
        self, events: Sequence[Event], also: Collection[str] = ()
    ) -> list[BadSignature | None]:
        """Check the signatures that each event must have; the outcome is `None` where all is well.

        `also` are servers that must have signed each of them, whatever the rules of rooms ask.
        Keys must be valid at an event's `origin_server_ts`, in room versions that ask for that.
        """
        outcomes: list[BadSignature | None] = [None] * len(events)
        wanted: Wanted = {}
        turn = TimeSlice(self.clock)
        for place, event in enumerate(events):
            if turn.is_over:
                await turn.next()
            try:
                for server_name in required_signers(event).union(also):
                    key_ids = _server_key_ids(event, server_name)
                    _add(wanted, server_name, key_ids, _time(event))
            except BadSignature as error:
                outcomes[place] = error
        await self._fetch_missing(wanted)
        for place, event in enumerate(events):
            if turn.is_over:
                await turn.next()
            if outcomes[place] is None:
                outcomes[place] = self._verify_event(event, also)
        return outcomes

    def _verify_event(self, event: Event, also: Collection[str]) -> BadSignature | None:
        try:
            for server_name in required_signers(event).union(also):
                key_ids = _server_key_ids(event, server_name)
                for key in self._usable(server_name, key_ids, _time(event)):
                    verify_event_signature(
                        event.version, event.pdu, server_name, key.key_id, key.verify_key
                    )
        except BadSignature as error:
            return error
        return None

    def _usable(self, server_name: str, key_ids: Iterable[str], ts: int) -> list[VerifyKey]:
        """The keys of these that are known and valid. Raises `KeyUnavailable` if there are none."""
        keys = [self._find(server_name, key_id) for key_id in key_ids]
        usable = [key for key in keys if key is not None and key.is_valid_at(ts)]
        if not usable:
            raise KeyUnavailable(f"no valid key is known of those by which {server_name} signed")
        return usable

    def _find(self, server_name: str, key_id: str) -> VerifyKey | None:
        if server_name == self._own.server_name:
            return self._own.find(key_id)
        return self._store.in_memory(server_name, key_id)

    async def _fetch_missing(
        self, wanted: Wanted, *, despite_backoff: bool = False, address: str = FOR_EVENTS
    ) -> None:
        """Have the keys at hand that can be had."""
        missing = self._missing(wanted)
        if not missing:
            return
        await self._store.load(missing)
        missing = self._missing(missing)
        if not missing:
            return
        fetching = [
            Deferred.fromCoroutine(
                self._fetcher.from_origin(
                    server_name, despite_backoff=despite_backoff, address=address
                )
            )
            for server_name in missing
        ]
        try:
            await DeferredList(fetching, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        missing = self._missing(missing)
        if missing:
            await self._fetcher.from_notaries(missing, self._check_notary)

    def _missing(self, wanted: Wanted) -> Wanted:
        """Those keys that are worth being fetched."""
        missing: Wanted = {}
        # No key is valid for longer, so nobody could help.
        latest = self._now_ms() + MAX_VALIDITY_MS
        for server_name, keys in wanted.items():
            if server_name == self._own.server_name:
                continue
            for key_id, ts in keys.items():
                known = self._store.in_memory(server_name, key_id)
                is_good = known is not None and (known.is_old or known.is_valid_at(ts))
                if not is_good and ts <= latest:
                    _add(missing, server_name, [key_id], ts)
        return missing

    async def _check_notary(self, notary: str, response: Mapping[str, Any]) -> None:
        """Raise `BadSignature` unless a notary has signed an answer."""
        ts = self._now_ms()
        key_ids = _signing_key_ids(response, notary)
        if any(self._find(notary, key_id) is None for key_id in key_ids):
            await self._store.load([notary])
        if self._missing({notary: dict.fromkeys(key_ids, ts)}):
            # From itself alone: notaries that vouch for each other are worth nothing.
            await self._fetcher.from_origin(notary)
        for key in self._usable(notary, key_ids, ts):
            verify_signed_json(response, notary, key.key_id, key.verify_key)

    def _now_ms(self) -> int:
        return int(wall_seconds(self.clock) * 1000)


def _signing_key_ids(value: Mapping[str, Any], server_name: str) -> list[str]:
    """The keys with which a server says to have signed. Raises `BadSignature` if there are none."""
    key_ids = signature_key_ids(value, server_name)
    if not key_ids:
        raise BadSignature(f"there is no signature of {server_name}")
    if len(key_ids) > MAX_SIGNATURES:
        raise BadSignature(f"there are too many signatures of {server_name}")
    return key_ids


def _server_key_ids(event: Event, server_name: str) -> list[str]:
    """The same of an event, without the key of a policy server, which no server publishes.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
    """
    key_ids = [each for each in _signing_key_ids(event.pdu, server_name) if each != POLICY_KEY_ID]
    if not key_ids:
        raise BadSignature(f"there is no signature of {server_name} but that of a policy server")
    return key_ids


def _add(wanted: Wanted, server_name: str, key_ids: Collection[str], ts: int) -> None:
    keys = wanted.setdefault(server_name, {})
    for key_id in key_ids:
        keys[key_id] = max(keys.get(key_id, ts), ts)


def _time(event: Event) -> int:
    """The time at which the keys of an event must have been valid."""
    return event.origin_server_ts if event.version.validates_signing_key_validity else ANY_TIME
