"""What updates have of users: whose devices changed, and profiles."""

from typing import Any

from homeserver.accounts.user_data.profile_changes import ProfileChanges
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.sync.sections.device_list_updates import DeviceListUpdates
from homeserver.sync.sections.device_sections import DeviceSections
from homeserver.sync.sections.profile_updates import ProfileUpdates
from homeserver.sync.sections.room_sharers import RoomSharers
from homeserver.sync.user_change_queues import UserChangeQueues
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.room_core import RoomCore


class UserSections:
    """All objects of the area. `profile_changes` is to be subscribed to the log."""

    def __init__(
        self,
        reactor: Any,
        db: Database,
        log: Log,
        account_core: AccountCore,
        room_core: RoomCore,
        encryption: Encryption,
        queues: UserChangeQueues,
    ) -> None:
        registry = room_core.registry
        self.member_history = encryption.membership_history
        shared = RoomSharers(
            db, room_core.names, registry, room_core.user_rooms, self.member_history
        )
        lists = DeviceListUpdates(shared, encryption.list_changes)
        self.devices = DeviceSections(encryption.inboxes, encryption.counts, lists)
        self.profile_changes = ProfileChanges(db, log)
        self.profiles = ProfileUpdates(
            shared, self.profile_changes, account_core.local_profiles, registry, queues, reactor
        )
