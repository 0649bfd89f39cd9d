"""Settings of local notifications: account data of clients, for one device each.

They end with the device. Account data cannot be deleted, so it becomes empty, as other devices are
to see it.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/3890
"""

from homeserver.accounts.sessions.devices import DeviceChange, DevicesRemoved
from homeserver.accounts.user_data.account_data import AccountData, AccountDataChanged
from homeserver.protocol.proposals.unstable_names import LOCAL_NOTIFICATIONS_PREFIX
from homeserver.storage.accounts.account_data import SET_ACCOUNT_DATA
from homeserver.streams.log import Log

PREFIXES = (
    LOCAL_NOTIFICATIONS_PREFIX,
    "m.local_notification_settings.",
)
EMPTY = b"{}"


class LocalNotificationSettings:
    """Empties the settings of removed devices: it accompanies the changes of devices."""

    def __init__(self, log: Log, account_data: AccountData) -> None:
        self._log = log
        self._account_data = account_data
        self._types: dict[str, frozenset[str]] = {}  # by user, from `prepare` to `follow`

    async def prepare(self, user_id: str) -> None:
        """Find the settings of the user's devices."""
        content = await self._account_data.of_room(user_id, None)
        found = frozenset(
            type_ for type_, data in content.items() if type_.startswith(PREFIXES) and data != EMPTY
        )
        if found:
            self._types[user_id] = found

    def follow(self, change: DeviceChange) -> None:
        """Empty the settings of removed devices, in the same commit (called by `Devices`)."""
        types = self._types.pop(change.user_id, frozenset())
        if not isinstance(change, DevicesRemoved):
            return
        for device_id in change.device_ids:
            for type_ in [f"{prefix}{device_id}" for prefix in PREFIXES]:
                if type_ in types:
                    position = self._log.next_position()
                    row = SET_ACCOUNT_DATA.row(change.user_id, "", type_, EMPTY, position)
                    entry = AccountDataChanged(position, change.user_id, None, type_, EMPTY)
                    # Not awaited: the change of the devices is in the same commit.
                    self._log.append(entry, [row]).addErrback(lambda _: None)
