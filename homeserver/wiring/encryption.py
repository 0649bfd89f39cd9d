"""End-to-end encryption: keys, device lists, and messages to devices."""

from typing import Any

from homeserver.client_api.encryption.keys import EncryptionKeysApi
from homeserver.client_api.encryption.to_device import ToDeviceApi
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_inboxes import DeviceInboxes
from homeserver.encryption.device_list_changes import DeviceListChanges
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.key_counts import DeviceKeyCounts
from homeserver.encryption.key_queries import KeyQueries
from homeserver.encryption.key_uploads import KeyUploads
from homeserver.encryption.one_time_keys import OneTimeKeys
from homeserver.encryption.remote.remote_keys_port import RemoteKeysPort
from homeserver.encryption.to_device import ToDevice
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.sync.engine import SyncEngine
from homeserver.web.routes import Route
from homeserver.wiring.account_core import AccountCore
from homeserver.wiring.remote_device_lists import RemoteDeviceLists
from homeserver.wiring.room_core import RoomCore


class Encryption:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        remote_keys: RemoteKeysPort,
    ) -> None:
        local_server = room_core.local_server
        self.directory = DeviceDirectory(db, local_server)
        self.device_lists = DeviceLists(db, log, room_core.user_rooms)
        self.list_changes = DeviceListChanges(db, log)
        self.counts = DeviceKeyCounts(db)
        self.inboxes = DeviceInboxes(db, log, reactor)
        self.one_time_keys = OneTimeKeys(db, log)
        self.uploads = KeyUploads(db, log, self.device_lists, self.one_time_keys, self.counts)
        self.remote = RemoteDeviceLists(
            reactor, db, log, readers, room_core, self.directory, self.device_lists, remote_keys
        )
        self.queries = KeyQueries(
            db, self.directory, self.one_time_keys, local_server, self.remote.queries
        )
        self.to_device = ToDevice(db, log, self.directory, local_server)
        account_core.devices.accompany(self.device_lists)
        for reader in (self.directory, self.list_changes, self.counts, self.inboxes):
            log.subscribe(reader.apply)

    def start(self) -> None:
        """Start background work."""
        self.inboxes.start()

    async def stop(self) -> None:
        """Stop background work, and write what is not stored yet."""
        await self.inboxes.stop()

    def routes(self, engine: SyncEngine) -> list[Route]:
        """The area's part of the client API."""
        apis: list[Any] = [
            EncryptionKeysApi(self.uploads, self.queries, engine),
            ToDeviceApi(self.to_device),
        ]
        return [route for api in apis for route in api.routes()]
