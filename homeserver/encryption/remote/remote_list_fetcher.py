"""Fetches the whole device list of a remote user from their server, and stores it.

All who need the list of a user at the same time share one request. What happens while it is under
way counts: if the server sends an update that the list may not have yet, the list is fetched again,
and if a room is no longer shared with the user, updates may have been missed, so the list is used
once and stored as stale.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.encryption.remote.remote_keys_port import KeysUnavailable, RemoteKeysPort
from homeserver.encryption.remote.remote_list_store import (
    RemoteListStore,
    replacing_rows,
    shown_devices,
)
from homeserver.encryption.remote.shared_users import SharedUsers, Sharing
from homeserver.encryption.user_devices import UserDevices
from homeserver.protocol.encryption.remote_keys import RemoteDeviceList
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.room.changes import StateChanged

MAX_REQUESTS = 100  # at the same time
MAX_REQUESTS_A_SERVER = 5
MAX_WAITING_A_SERVER = 500
MAX_WAITING = 5_000
RECENT_SECONDS = 60.0  # for which updates of a list may be on their way after it was fetched
MAX_RECENT = 20_000  # such lists
MAX_ATTEMPTS = 3  # for one list whose server sends updates all the time


class _Fetch:
    """A request under way, and what happened since it was sent."""

    __slots__ = ("is_interrupted", "is_outdated", "newest")

    def __init__(self) -> None:
        self.is_interrupted = False
        self.is_outdated = False
        self.newest = 0

    def includes_all(self, fetched: RemoteDeviceList) -> bool:
        """Whether the response has all the updates that came since the request was sent.

        Their stream ids grow, at least while one request is under way.
        """
        return not self.is_outdated and fetched.stream_id >= self.newest


class RemoteListFetcher:
    """Fetches the lists of users with whom a room is shared.

    `apply` is to be subscribed to the log, after the rooms.
    """

    def __init__(
        self,
        clock: Clock,
        local_server: LocalServer,
        remote: RemoteKeysPort,
        store: RemoteListStore,
        shared: SharedUsers,
    ) -> None:
        self._clock = clock
        self._is_local = local_server.is_local
        self._remote = remote
        self._store = store
        self._shared = shared
        self._fetched_at: LruCache[str, float] = LruCache("fetched_device_lists", MAX_RECENT)
        self._fetches: dict[str, _Fetch] = {}
        self._fetching: SingleFlight[str, UserDevices] = SingleFlight()
        self._slots = FairSlots(
            MAX_REQUESTS,
            share=MAX_REQUESTS_A_SERVER,
            max_waiting=MAX_WAITING_A_SERVER,
            max_waiting_in_all=MAX_WAITING,
        )

    async def fetch(self, user_id: str) -> UserDevices:
        """The devices of a user as their server has them now. Raises `KeysUnavailable`.

        The list is stored, unless nobody shares a room with the user any more; one that has become
        current meanwhile is returned. A caller that stops waiting does not stop the request.
        """
        return await self._fetching.join(user_id, partial(self._fetch, user_id))

    async def refresh(self, user_id: str) -> bool:
        """Fetch a user's list if it is needed; whether nothing is left to do.

        Raises `KeysUnavailable`.
        """
        if await self._shared.sharing(user_id) is not Sharing.FULL:
            return True
        await self.fetch(user_id)
        known = await self._store.find(user_id)
        return known.is_current or await self._shared.sharing(user_id) is not Sharing.FULL

    def updated(self, user_id: str, stream_id: int | None) -> None:
        """An update of a user's list came; `None` for one that has no place among the others.

        The caller holds the lock of the user.
        """
        fetch = self._fetches.get(user_id)
        if fetch is not None and stream_id is not None:
            fetch.newest = max(fetch.newest, stream_id)
        elif fetch is not None:
            fetch.is_outdated = True

    def includes(self, user_id: str, known: UserDevices, stream_id: int) -> bool:
        """Whether a current list has an update: it came twice, or the list was fetched since.

        Of a list that was fetched just now, the earlier updates may still be on their way.
        """
        if not known.is_current or known.stream_id is None:
            return False
        if stream_id == known.stream_id:
            return True
        fetched_at = self._fetched_at.get(user_id)
        is_recent = fetched_at is not None and self._clock.seconds() - fetched_at < RECENT_SECONDS
        return is_recent and stream_id < known.stream_id

    def apply(self, entries: Sequence[Any]) -> None:
        """Note for requests under way where a room may not be shared any more (called by the log).

        Even if it is shared again by now: no updates came in between.
        """
        if not self._fetches:
            return
        for entry in entries:
            if isinstance(entry, StateChanged):
                for user_id, membership, _ in entry.members():
                    if membership != "join":
                        self._interrupt(user_id, entry.room_nid)

    def _interrupt(self, left: str, room_nid: int) -> None:
        if left in self._fetches:
            self._fetches[left].is_interrupted = True
        elif self._is_local(left):
            for user_id, fetch in self._fetches.items():
                if self._shared.may_be_in(user_id, room_nid):
                    fetch.is_interrupted = True

    async def _fetch(self, user_id: str) -> UserDevices:
        known = await self._store.find(user_id)
        if known.is_current:
            return known
        for _ in range(MAX_ATTEMPTS):
            fetch = self._fetches[user_id] = _Fetch()
            try:
                fetched = await self._request(user_id)
                async with self._store.hold(user_id):
                    await self._keep(user_id, fetched, fetch)
            finally:
                del self._fetches[user_id]
            if fetch.includes_all(fetched):
                break
        return shown_devices(user_id, fetched.keys)

    async def _request(self, user_id: str) -> RemoteDeviceList:
        server = user_id.partition(":")[2]
        try:
            async with self._slots.slot(server):
                return await self._remote.fetch_device_list(user_id)
        except QueueFull:
            raise KeysUnavailable(503, f"Too many requests wait for {server}") from None

    async def _keep(self, user_id: str, fetched: RemoteDeviceList, fetch: _Fetch) -> None:
        known = await self._store.find(user_id)
        if await self._shared.sharing(user_id) is not Sharing.FULL:
            return
        await self._store.prepare(user_id)
        # From here on nothing else runs before the list is in the log.
        is_stale = fetch.is_interrupted or not fetch.includes_all(fetched)
        rows = replacing_rows(user_id, known, fetched, is_stale=is_stale)
        await self._store.record(user_id, rows)
        self._fetched_at.put(user_id, self._clock.seconds())
