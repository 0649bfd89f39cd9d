"""The kinds of log entries of this server, each with the name that it has on the wire."""

from appservices.transactions.delivery import AppserviceTransactionStored
from federation.sending.sender import SendingRecorded
from homeserver.accounts.sessions.devices import DeviceAdded, DeviceRenamed, DevicesRemoved
from homeserver.accounts.status.erasure import UserErased
from homeserver.accounts.user_data.account_data import AccountDataChanged, AccountDataErased
from homeserver.accounts.user_data.profiles import ProfileChanged
from homeserver.encryption.changes import (
    ClaimableKeysChanged,
    DeviceListChanged,
    DeviceListsQueued,
    ToDeviceMessagesQueued,
    ToDeviceMessagesSent,
    UserSignaturesChanged,
)
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.push.pushers.pusher import PushersChanged, PushProgressStored
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.rooms.discovery.network_lists import NetworkListChanged
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.log_entries.room_entries import ROOM_ENTRY_KINDS
from homeserver.streams.durable_reader import ReaderMoved
from homeserver.streams.entry_codec import EntryCodec, plain_kind


def entry_codec() -> EntryCodec:
    """The codec of all entries that a part of this server appends to the log."""
    return EntryCodec(
        (
            *ROOM_ENTRY_KINDS,
            plain_kind("network_list", 1, NetworkListChanged),
            plain_kind("typing", 1, TypingChanged),
            plain_kind("presence", 1, PresenceChanged),
            plain_kind("account_data", 1, AccountDataChanged),
            plain_kind("account_data_erased", 1, AccountDataErased),
            plain_kind("user_erased", 1, UserErased),
            plain_kind("profile", 1, ProfileChanged),
            plain_kind("device_added", 1, DeviceAdded),
            plain_kind("device_renamed", 1, DeviceRenamed),
            plain_kind("devices_removed", 1, DevicesRemoved),
            plain_kind("device_list", 1, DeviceListChanged),
            plain_kind("user_signatures", 1, UserSignaturesChanged),
            plain_kind("claimable_keys", 1, ClaimableKeysChanged),
            plain_kind("to_device", 1, ToDeviceMessagesSent),
            plain_kind("to_device_queued", 1, ToDeviceMessagesQueued),
            plain_kind("device_lists_queued", 1, DeviceListsQueued),
            plain_kind("pushers", 1, PushersChanged),
            plain_kind("push_progress", 1, PushProgressStored),
            plain_kind("thread_subscription", 1, ThreadSubscriptionChanged),
            plain_kind("reader_moved", 1, ReaderMoved),
            plain_kind("appservice_transaction", 1, AppserviceTransactionStored),
            plain_kind("sending_recorded", 1, SendingRecorded),
        )
    )
