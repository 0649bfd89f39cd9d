"""The wire format of each kind of log entry, byte for byte: another release must still read it.

If one of these changes, the `version` of its kind has to change with it.
"""

from typing import Any

import pytest

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
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.push.pushers.pusher import PushersChanged, PushProgressStored
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.rooms.discovery.network_lists import NetworkListChanged
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.events.event_draft import ClientTransaction
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.room.changes import (
    DirectoryVisibilityChanged,
    EventAppended,
    EventsPurged,
    EventsStored,
    HistoryImported,
    OutOfRoomMembershipChanged,
    PartialRoomJoined,
    PartialRoomLeft,
    PartialRoomReplaced,
    RedactedEvent,
    RedactionPending,
    RoomAliasChanged,
    RoomAliasesMoved,
    RoomDeleted,
    RoomUnPartialStated,
    StateChanged,
)
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged
from homeserver.rooms.room.user_rooms import RoomForgotten
from homeserver.streams.durable_reader import ReaderMoved
from homeserver.wiring.entry_kinds import entry_codec
from tests.streams.entry_strategies import as_values

CODEC = entry_codec()
EVENT = Event.from_json(
    ROOM_VERSIONS["11"],
    b'{"content":{},"depth":1,"origin_server_ts":2,"room_id":"!r","sender":"@a:b","type":"t"}',
    "$event",
)
SHOWN = StoredEvent(
    EVENT,
    7,
    7,
    b"before",
    b"after",
    stored_at=7,
    replaces=5,
    replaced=EVENT,
    redaction=EVENT,
    transaction=ClientTransaction("@a:b", "DESK", "txn", "path"),
)
OUTLIER = StoredEvent(
    EVENT, 6, None, b"", b"", stored_at=8, status=EventStatus(True, "rule 1", "rule 2")
)
GOLDEN: list[tuple[Any, bytes]] = [
    (
        PartialRoomJoined(8, 1, "$join", ("a", "b")),
        b"\x93\x01\xb3partial_room_joined\x94\x08\x01\xa5$join\x92\xa1a\xa1b",
    ),
    (
        EventsPurged(8, 1, (6, 7), True),
        b"\x93\x01\xadevents_purged\x94\x08\x01\x92\x06\x07\xc3",
    ),
    (
        RoomDeleted(8, 1, "!r:a"),
        b"\x93\x01\xacroom_deleted\x93\x08\x01\xa4!r:a",
    ),
    (
        PartialRoomReplaced(8, 1),
        b"\x93\x01\xb5partial_room_replaced\x92\x08\x01",
    ),
    (
        NetworkListChanged(8, "irc", "libera", 1, True),
        b"\x93\x01\xacnetwork_list\x95\x08\xa3irc\xa6libera\x01\xc3",
    ),
    (
        DirectoryVisibilityChanged(8, 1, True),
        b"\x93\x01\xb4directory_visibility\x93\x08\x01\xc3",
    ),
    (
        RoomAliasChanged(8, "#a:b", None),
        b"\x93\x01\xaaroom_alias\x93\x08\xa4#a:b\xc0",
    ),
    (
        AppserviceTransactionStored(8, "irc"),
        b"\x93\x01\xb6appservice_transaction\x92\x08\xa3irc",
    ),
    (
        RoomAliasesMoved(8, 1, 2),
        b"\x93\x01\xb2room_aliases_moved\x93\x08\x01\x02",
    ),
    (
        AccountDataErased(8, "@a:b"),
        b"\x93\x01\xb3account_data_erased\x92\x08\xa4@a:b",
    ),
    (
        UserErased(8, "@a:b"),
        b"\x93\x01\xabuser_erased\x92\x08\xa4@a:b",
    ),
    (
        PartialRoomLeft(8, 1, "$join"),
        b"\x93\x01\xb1partial_room_left\x93\x08\x01\xa5$join",
    ),
    (
        RoomForgotten(8, "@a:b", 1),
        b"\x93\x01\xa9forgotten\x93\x08\xa4@a:b\x01",
    ),
    (
        ReceiptsChanged(8, 1, (Receipt("@a:b", "m.read", None, "$event", 7, 99),)),
        b"\x93\x02\xa7receipt\x93\x08\x01\x91\x96\xa4@a:b\xa6m.read\xc0\xa6$event\x07c",
    ),
    (
        TypingChanged(8, 1, "@a:b", True),
        b"\x93\x01\xa6typing\x94\x08\x01\xa4@a:b\xc3",
    ),
    (
        PresenceChanged(8, "@a:b", (1, 2), "online", "busy", 99),
        b"\x93\x01\xa8presence\x96\x08\xa4@a:b\x92\x01\x02\xa6online\xa4busyc",
    ),
    (
        AccountDataChanged(8, "@a:b", None, "m.direct", b"{}"),
        b"\x93\x01\xacaccount_data\x95\x08\xa4@a:b\xc0\xa8m.direct\xc4\x02{}",
    ),
    (
        ProfileChanged(8, "@a:b", "displayname", b'"A"'),
        b'\x93\x01\xa7profile\x94\x08\xa4@a:b\xabdisplayname\xc4\x03"A"',
    ),
    (
        DeviceRenamed(8, "@a:b", "DESK"),
        b"\x93\x01\xaedevice_renamed\x93\x08\xa4@a:b\xa4DESK",
    ),
    (
        DeviceAdded(8, "@a:b", "DESK"),
        b"\x93\x01\xacdevice_added\x93\x08\xa4@a:b\xa4DESK",
    ),
    (
        DeviceListChanged(8, "@a:b", (1, 2), "DESK", 5, None),
        b"\x93\x01\xabdevice_list\x96\x08\xa4@a:b\x92\x01\x02\xa4DESK\x05\xc0",
    ),
    (
        UserSignaturesChanged(8, "@a:b", ("@c:d",)),
        b"\x93\x01\xafuser_signatures\x93\x08\xa4@a:b\x91\xa4@c:d",
    ),
    (
        ClaimableKeysChanged(8, "@a:b", ("DESK",)),
        b"\x93\x01\xaeclaimable_keys\x93\x08\xa4@a:b\x91\xa4DESK",
    ),
    (
        ToDeviceMessagesSent(8, "@a:b", (("DESK", b"{}"),)),
        b"\x93\x01\xa9to_device\x93\x08\xa4@a:b\x91\x92\xa4DESK\xc4\x02{}",
    ),
    (
        ToDeviceMessagesQueued(8, "d"),
        b"\x93\x01\xb0to_device_queued\x92\x08\xa1d",
    ),
    (
        DeviceListsQueued(8, ("d", "e")),
        b"\x93\x01\xb3device_lists_queued\x92\x08\x92\xa1d\xa1e",
    ),
    (
        DevicesRemoved(8, "@a:b", ("DESK", "PHONE")),
        b"\x93\x01\xafdevices_removed\x93\x08\xa4@a:b\x92\xa4DESK\xa5PHONE",
    ),
    (
        PushersChanged(8, ("@a:b", "@c:b")),
        b"\x93\x01\xa7pushers\x92\x08\x92\xa4@a:b\xa4@c:b",
    ),
    (
        PushProgressStored(8),
        b"\x93\x01\xadpush_progress\x91\x08",
    ),
    (
        ThreadSubscriptionChanged(8, 1, "$root", "@a:b", True, False),
        b"\x93\x01\xb3thread_subscription\x96\x08\x01\xa5$root\xa4@a:b\xc3\xc2",
    ),
    (
        ReaderMoved(8),
        b"\x93\x01\xacreader_moved\x91\x08",
    ),
    (
        SendingRecorded(8),
        b"\x93\x01\xb0sending_recorded\x91\x08",
    ),
    (
        StateChanged(
            8, 1, b"root", {("t", "gone"): None, ("t", "key"): OUTLIER}, True, {"$missing": 3}
        ),
        (
            b"\x93\x01\xa5state\x97\x08\x01\xc4\x04root\xc3\x81\xa8$missing\x03\x92\x93\xa1"
            b't\xa4gone\xc0\x93\xa1t\xa3key\x00\x92\xa211\x91\x9e\x92\xa6$event\xc4W{"conte'
            b'nt":{},"depth":1,"origin_server_ts":2,"room_id":"!r","sender":"@a:b","type":"'
            b't"}\x06\xc0\x08\xc4\x00\xc4\x00\x01\xc0\xc0\xc0\xc0\xc3\xa6rule 1\xa6rule 2'
        ),
    ),
    (
        EventAppended(
            7,
            1,
            b"root",
            {("t", "key"): SHOWN},
            stored=SHOWN,
            redacts=RedactedEvent(4, 4, "t", None),
            is_last=False,
            version=EVENT.version,
        ),
        (
            b"\x93\x01\xa5event\x96\x97\x07\x01\xc4\x04root\xc2\x80\x91\x93\xa1t\xa3key\x00"
            b'\x92\xa211\x91\x9e\x92\xa6$event\xc4W{"content":{},"depth":1,"origin_server_t'
            b's":2,"room_id":"!r","sender":"@a:b","type":"t"}\x07\x07\x07\xc4\x06before\xc4\x05'
            b'after\x01\x05\x92\xa6$event\xc4W{"content":{},"depth":1,"origin_server_ts":2,'
            b'"room_id":"!r","sender":"@a:b","type":"t"}\x92\xa6$event\xc4W{"content":{},"d'
            b'epth":1,"origin_server_ts":2,"room_id":"!r","sender":"@a:b","type":"t"}\x94'
            b"\xa4@a:b\xa4DESK\xa3txn\xa4path\xc2\xc0\xc0\x94\x04\x04\xa1t\xc0\xc3\xc2\xc2"
            b"\xc3"
        ),
    ),
    (
        RedactionPending(6, 1, b"root", is_fork=True, stored=OUTLIER, should_send=False),
        (
            b"\x93\x01\xb1pending_redaction\x92\x97\x06\x01\xc4\x04root\xc3\x80\x90\x92\xa2"
            b'11\x91\x9e\x92\xa6$event\xc4W{"content":{},"depth":1,"origin_server_ts":2,"ro'
            b'om_id":"!r","sender":"@a:b","type":"t"}\x06\xc0\x08\xc4\x00\xc4\x00\x01\xc0\xc0'
            b"\xc0\xc0\xc3\xa6rule 1\xa6rule 2\xc2"
        ),
    ),
    (
        RoomUnPartialStated(8, 1, b"root", removed=frozenset({7, 6})),
        (
            b"\x93\x01\xb1un_partial_stated\x92\x97\x08\x01\xc4\x04root\xc2\x80\x90\x92\xc0"
            b"\x90\x92\x06\x07"
        ),
    ),
    (
        OutOfRoomMembershipChanged(8, 1, "@a:b", "invite", OUTLIER),
        (
            b"\x93\x01\xabout_of_room\x95\x08\x01\xa4@a:b\xa6invite\x92\xa211\x91\x9e\x92"
            b'\xa6$event\xc4W{"content":{},"depth":1,"origin_server_ts":2,"room_id":"!r","s'
            b'ender":"@a:b","type":"t"}\x06\xc0\x08\xc4\x00\xc4\x00\x01\xc0\xc0\xc0\xc0\xc3\xa6'
            b"rule 1\xa6rule 2"
        ),
    ),
    (
        EventsStored(8, 1, [OUTLIER], {"$missing": 3}, RedactedEvent(4, None, "t", "key")),
        (
            b'\x93\x01\xa6stored\x95\x08\x01\x92\xa211\x91\x9e\x92\xa6$event\xc4W{"content"'
            b':{},"depth":1,"origin_server_ts":2,"room_id":"!r","sender":"@a:b","type":"t"}'
            b"\x06\xc0\x08\xc4\x00\xc4\x00\x01\xc0\xc0\xc0\xc0\xc3\xa6rule 1\xa6rule 2\x81\xa8$"
            b"missing\x03\x94\x04\xc0\xa1t\xa3key"
        ),
    ),
    (
        HistoryImported(8, 1, [OUTLIER], 5),
        (
            b'\x93\x01\xa8imported\x94\x08\x01\x92\xa211\x91\x9e\x92\xa6$event\xc4W{"content"'
            b':{},"depth":1,"origin_server_ts":2,"room_id":"!r","sender":"@a:b","type":"t"}'
            b"\x06\xc0\x08\xc4\x00\xc4\x00\x01\xc0\xc0\xc0\xc0\xc3\xa6rule 1\xa6rule 2\x05"
        ),
    ),
]


@pytest.mark.parametrize(
    ("entry", "data"), GOLDEN, ids=[type(entry).__name__ for entry, _ in GOLDEN]
)
def test_format_of_an_entry_stays(entry: Any, data: bytes) -> None:
    """Two releases run side by side while a cluster is upgraded."""
    assert CODEC.encode(entry) == data
    assert as_values(CODEC.decode(data)) == as_values(entry)


def test_format_of_each_kind_is_known() -> None:
    """A new kind is added here."""
    assert {type(entry) for entry, _ in GOLDEN} == set(CODEC.classes)
