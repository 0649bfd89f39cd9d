"""End-to-end encryption: keys, device lists, and messages to devices."""

from typing import Any

from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.client_api.encryption.cross_signing import CrossSigningApi
from homeserver.client_api.encryption.dehydrated_devices import DehydratedDevicesApi
from homeserver.client_api.encryption.key_backup import KeyBackupApi
from homeserver.client_api.encryption.keys import EncryptionKeysApi
from homeserver.client_api.encryption.to_device import ToDeviceApi
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.settings import Settings
from homeserver.encryption.backed_up_keys import BackedUpKeys
from homeserver.encryption.cross_signing import CrossSigning
from homeserver.encryption.dehydrated_devices import DehydratedDevices
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_inboxes import DeviceInboxes
from homeserver.encryption.device_list_changes import DeviceListChanges
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.key_backups import KeyBackups
from homeserver.encryption.key_counts import DeviceKeyCounts
from homeserver.encryption.key_queries import KeyQueries
from homeserver.encryption.key_set_deletion import KeySetDeletion
from homeserver.encryption.key_signatures import KeySignatures
from homeserver.encryption.key_uploads import KeyUploads
from homeserver.encryption.message_retention import MessageRetention
from homeserver.encryption.one_time_keys import OneTimeKeys
from homeserver.encryption.remote.remote_keys_port import RemoteKeysPort
from homeserver.encryption.to_device import ToDevice
from homeserver.rooms.history.member_changes import MembershipHistory
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.sync.engine import SyncEngine
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.federation.remote_device_lists import RemoteDeviceLists
from homeserver.wiring.room_core import RoomCore


class Encryption:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
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
        locks = account_core.devices.key_locks
        self.uploads = KeyUploads(
            db, log, self.device_lists, self.one_time_keys, self.counts, self.directory, locks
        )
        self.cross_signing = CrossSigning(db, log, self.directory, self.device_lists, locks)
        self._signatures = KeySignatures(db, log, reactor, self.directory, self.device_lists, locks)
        self.membership_history = MembershipHistory(db, room_core.registry)
        self.remote = RemoteDeviceLists(
            reactor,
            db,
            log,
            readers,
            room_core,
            self.directory,
            self.device_lists,
            remote_keys,
            self.membership_history,
        )
        self.queries = KeyQueries(
            db, self.directory, self.one_time_keys, local_server, self.remote.queries
        )
        self.to_device = ToDevice(db, log, self.directory, local_server)
        self.dehydrated_devices = DehydratedDevices(
            db, log, account_core.devices, account_core.sessions, self.uploads, self.inboxes
        )
        self._retention = MessageRetention(db, reactor, settings.encryption)
        writing: KeyedLocks[str] = KeyedLocks()
        self._key_set_deletion = KeySetDeletion(db, reactor)
        self.key_backups = KeyBackups(db, writing, self._key_set_deletion)
        self._backed_up_keys = BackedUpKeys(
            db, reactor, self.key_backups, writing, self._key_set_deletion
        )
        account_core.devices.accompany(self.device_lists)
        for reader in (self.directory, self.list_changes, self.counts, self.inboxes):
            log.subscribe(reader.apply)

    def start(self) -> None:
        """Start background work."""
        self.inboxes.start()
        self._retention.start()
        self._key_set_deletion.start()

    async def stop(self) -> None:
        """Stop background work, and write what is not stored yet."""
        await self._key_set_deletion.stop()
        await self._retention.stop()
        await self.inboxes.stop()

    def routes(
        self, engine: SyncEngine, uia: UserInteractiveAuth, resets: CrossSigningReset | None
    ) -> list[Route]:
        """The area's part of the client API."""
        apis: list[Any] = [
            EncryptionKeysApi(self.uploads, self.queries, engine),
            CrossSigningApi(self.cross_signing, self._signatures, uia, resets),
            ToDeviceApi(self.to_device),
            DehydratedDevicesApi(self.dehydrated_devices),
            KeyBackupApi(self.key_backups, self._backed_up_keys),
        ]
        return [route for api in apis for route in api.routes()]
