"""Keys and device lists of users of other servers."""

from typing import Any

from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.remote.remote_key_queries import RemoteKeyQueries
from homeserver.encryption.remote.remote_keys_port import RemoteKeysPort
from homeserver.encryption.remote.remote_list_fetcher import RemoteListFetcher
from homeserver.encryption.remote.remote_list_resync import RemoteListResync
from homeserver.encryption.remote.remote_list_store import RemoteListStore
from homeserver.encryption.remote.remote_list_updates import RemoteListUpdates
from homeserver.encryption.remote.shared_users import SharedUsers
from homeserver.encryption.remote.unshared_lists import EndedMemberships, UnsharedLists
from homeserver.rooms.history.member_changes import MembershipHistory
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.wiring.room_core import RoomCore


class RemoteDeviceLists:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        db: Database,
        log: Log,
        readers: DurableReaders,
        room_core: RoomCore,
        directory: DeviceDirectory,
        device_lists: DeviceLists,
        remote_keys: RemoteKeysPort,
        history: MembershipHistory,
    ) -> None:
        registry = room_core.registry
        shared = SharedUsers(db, room_core.names, registry, room_core.user_rooms, history)
        store = RemoteListStore(log, directory, device_lists)
        fetcher = RemoteListFetcher(reactor, room_core.local_server, remote_keys, store, shared)
        self.resync = RemoteListResync(db, fetcher.refresh, reactor)
        self.updates = RemoteListUpdates(store, shared, fetcher, self.resync)
        self.queries = RemoteKeyQueries(
            reactor, directory, shared, fetcher, self.resync, remote_keys
        )
        unshared = UnsharedLists(db, log, registry, directory, shared, self.updates)
        log.subscribe(fetcher.apply)
        readers.add("remote_device_lists", EndedMemberships(db, registry), unshared.delete)
