"""The updates of device lists that other servers send.

A stored list takes an update that follows it directly. Any other update says that one was missed:
the list becomes stale and is fetched again. In both cases the clients that follow the user hear of
it, also where no list is stored: they may have fetched it before.

The order of stream ids says nothing about a list that was fetched some time ago: a server that was
restored from a backup uses lower ones than before. An unknown id costs a request, and nothing is
missed.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping, Sequence

from homeserver.encryption.remote.remote_list_fetcher import RemoteListFetcher
from homeserver.encryption.remote.remote_list_resync import RemoteListResync
from homeserver.encryption.remote.remote_list_store import (
    RemoteListStore,
    cross_signing_rows,
    deleting_rows,
    device_row,
)
from homeserver.encryption.remote.shared_users import SharedUsers, Sharing
from homeserver.encryption.user_devices import UserDevices
from homeserver.protocol.encryption.key_objects import MAX_LIST_BYTES
from homeserver.protocol.encryption.remote_keys import (
    MAX_DEVICES,
    DeviceUpdate,
)
from homeserver.storage.database.batch import Row
from homeserver.storage.encryption.remote_devices import DELETE_REMOTE_DEVICE, SET_REMOTE_LIST


class RemoteListUpdates:
    """Applies updates of the lists of remote users."""

    def __init__(
        self,
        store: RemoteListStore,
        shared: SharedUsers,
        fetcher: RemoteListFetcher,
        resync: RemoteListResync,
    ) -> None:
        self._store = store
        self._shared = shared
        self._fetcher = fetcher
        self._resync = resync

    async def device_changed(self, user_id: str, update: DeviceUpdate | None) -> None:
        """A device of a user changed; `None` if the update cannot be read.

        The user's server sent it. Raises `Unavailable`.
        """
        sharing = await self._shared.sharing(user_id)
        if sharing is Sharing.NONE:
            return
        async with self._store.hold(user_id):
            self._fetcher.updated(user_id, None if update is None else update.stream_id)
            known = await self._store.find(user_id)
            if update is not None and self._fetcher.includes(user_id, known, update.stream_id):
                return
            rows = None if update is None else _rows_of_update(user_id, known, update)
            await self._record(user_id, known, rows, None if update is None else update.device_id)
        if rows is None and sharing is Sharing.FULL:
            self._resync.begin(user_id)

    async def cross_signing_changed(self, user_id: str, keys: Mapping[str, bytes] | None) -> None:
        """Cross-signing keys of a user, given by usage, changed; `None` if they cannot be read.

        The user's server sent it. Raises `Unavailable`.
        """
        sharing = await self._shared.sharing(user_id)
        if sharing is Sharing.NONE:
            return
        async with self._store.hold(user_id):
            self._fetcher.updated(user_id, None)
            known = await self._store.find(user_id)
            is_applied = keys is not None and known.is_current
            rows = cross_signing_rows(user_id, keys or {}) if is_applied else None
            await self._record(user_id, known, rows, None)
        if rows is None and sharing is Sharing.FULL:
            self._resync.begin(user_id)

    async def stop_following(self, user_id: str) -> None:
        """Delete a user's list: no room is shared any more, so no update of it comes.

        Raises `Unavailable`.
        """
        async with self._store.hold(user_id):
            known = await self._store.find(user_id)
            if known.stream_id is not None:
                await self._store.prepare(user_id)
                await self._store.record(user_id, deleting_rows(user_id, known))

    async def _record(
        self,
        user_id: str,
        known: UserDevices,
        rows: Sequence[Row] | None,
        device_id: str | None,
    ) -> None:
        """Write the rows of an update; without any, that a list is stale, if one is stored."""
        if rows is None:
            is_stored = known.stream_id is not None
            rows = [SET_REMOTE_LIST.row(user_id, known.stream_id, True)] if is_stored else []
        await self._store.prepare(user_id)
        await self._store.record(user_id, rows, device_id)


def _rows_of_update(user_id: str, known: UserDevices, update: DeviceUpdate) -> list[Row] | None:
    """The rows that apply an update to a list; `None` if it does not follow it directly."""
    follows = bool(update.previous) and all(each == known.stream_id for each in update.previous)
    if not (known.is_current and follows):
        return None
    moved = SET_REMOTE_LIST.row(user_id, update.stream_id, False)
    if update.device is None:
        return [moved, DELETE_REMOTE_DEVICE.row(user_id, update.device_id)]
    number = len({*known.devices, update.device_id})
    replaced = len(known.encoded.get(update.device_id, b""))
    size = len(known.device_keys) - replaced + len(update.device.keys or b"")
    if number > MAX_DEVICES or size > MAX_LIST_BYTES:
        return [moved, DELETE_REMOTE_DEVICE.row(user_id, update.device_id)]
    return [moved, device_row(user_id, update.device_id, update.device)]
