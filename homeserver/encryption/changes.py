"""Log entries of end-to-end encryption."""

import msgspec


class DeviceListChanged(msgspec.Struct, frozen=True):
    """The devices, or the cross-signing keys, of a local or remote user changed.

    `rooms` are the numeric ids of those that the user is joined to: their members have to know.
    `device_id` is `None` for cross-signing keys and for a whole list. Other servers receive a local
    user's change as `stream_id`, after that of the change before, `previous_id`, where it is known.
    """

    position: int
    user_id: str
    rooms: tuple[int, ...]
    device_id: str | None
    stream_id: int
    previous_id: int | None


class UserSignaturesChanged(msgspec.Struct, frozen=True):
    """A user signed keys of other users, which only their own devices see.

    `user_ids` are those users, and the user themself where it is about their own keys.
    """

    position: int
    signer: str
    user_ids: tuple[str, ...]


class ClaimableKeysChanged(msgspec.Struct, frozen=True):
    """One-time or fallback keys of some devices of a local user were uploaded or claimed."""

    position: int
    user_id: str
    device_ids: tuple[str, ...]


class ToDeviceMessagesSent(msgspec.Struct, frozen=True):
    """Messages to devices of one local user: device id, and the event as JSON."""

    position: int
    user_id: str
    messages: tuple[tuple[str, bytes], ...]


class ToDeviceMessagesQueued(msgspec.Struct, frozen=True):
    """Messages to devices of users of another server were stored, to be sent to it."""

    position: int
    destination: str


class DeviceListsQueued(msgspec.Struct, frozen=True):
    """Changes of local users' device lists were stored, to be sent to these servers."""

    position: int
    destinations: tuple[str, ...]
