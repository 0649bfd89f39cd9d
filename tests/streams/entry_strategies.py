"""Hypothesis strategies for log entries of every kind, with events of every room version."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

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
from homeserver.presence.user_presence import State
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
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
from tests.rooms.inbound.replica import ALICE, build

Draw = Callable[[st.SearchStrategy[Any]], Any]

positions = st.integers(1, 2**63 - 1)
nids = st.integers(1, 2**32)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
roots = st.binary(min_size=12, max_size=12)
depths = st.dictionaries(names, st.integers(0, 2**63 - 1), max_size=3)
redacted = st.builds(RedactedEvent, positions, st.none() | positions, names, st.none() | names)
statuses = st.builds(EventStatus, st.booleans(), st.none() | names, st.none() | names)
transactions = st.builds(ClientTransaction, names, names, names, names)


@cache
def example_events(identifier: str) -> Sequence[Event]:
    """A create event, a member event, a message and a redaction of a room of this version."""
    version = ROOM_VERSIONS[identifier]
    given = None if version.room_id_is_create_hash else "!room:one.example"
    content = {"creator": ALICE, "room_version": identifier}
    create = build(identifier, given, "m.room.create", ALICE, content, "", [], [], 1, 1)
    auth = [] if version.room_id_is_create_hash else [create]
    room_id, member = create.room_id, {"membership": "join", "displayname": "Älice \U0001f600"}
    join = build(identifier, room_id, "m.room.member", ALICE, member, ALICE, [create], auth, 2, 2)
    said = build(
        identifier,
        room_id,
        "m.room.message",
        ALICE,
        {"msgtype": "m.text", "body": "hello"},
        None,
        [join],
        [*auth, join],
        3,
        3,
    )
    redaction = build(
        identifier,
        room_id,
        "m.room.redaction",
        ALICE,
        {"reason": "spam"},
        None,
        [said],
        [*auth, join],
        4,
        4,
        redacts=said.event_id,
    )
    return create, join, said, redaction


@st.composite
def stored_events(draw: Draw, version: RoomVersion) -> StoredEvent:
    """An event of a room of this version, with anything that a server may know of it."""
    events = st.sampled_from(example_events(version.identifier))
    return StoredEvent(
        draw(events),
        draw(nids),
        draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        draw(roots),
        draw(roots),
        stored_at=draw(positions),
        replaces=draw(st.none() | nids),
        replaced=draw(st.none() | events),
        redaction=draw(st.none() | events),
        transaction=draw(st.none() | transactions),
        status=draw(statuses),
        topological_depth=draw(st.none() | st.integers(1, 10**17)),
    )


def _several(version: RoomVersion) -> st.SearchStrategy[list[StoredEvent]]:
    return st.lists(stored_events(version), max_size=3, unique_by=lambda each: each.event_nid)


@st.composite
def state_changes(draw: Draw, version: RoomVersion, subject: StoredEvent | None) -> dict[str, Any]:
    """The fields of `StateChanged`; `subject`, if there is one, may be among the changes."""
    events = draw(_several(version))
    if subject is not None:
        events = [subject, *(each for each in events if each.event_nid != subject.event_nid)]
    values = st.none() | st.sampled_from(events) if events else st.none()
    return {
        "position": draw(positions),
        "room_nid": draw(nids),
        "root": draw(roots),
        "changes": draw(st.dictionaries(st.tuples(names, names), values, max_size=4)),
        "is_fork": draw(st.booleans()),
        "backward_extremities": draw(depths),
    }


@st.composite
def room_entries(draw: Draw, identifier: str) -> Any:
    """An entry with events of a room of this version."""
    version, flag = ROOM_VERSIONS[identifier], st.booleans()
    stored = draw(stored_events(version))
    match draw(st.integers(0, 6)):
        case 0:
            return StateChanged(**draw(state_changes(version, None)))
        case 1:
            return EventAppended(
                **draw(state_changes(version, stored)),
                stored=stored,
                redacts=draw(st.none() | redacted),
                should_send=draw(flag),
                is_last=draw(flag),
                is_after_gap=draw(flag),
                version=version if draw(flag) else None,
            )
        case 2:
            changes = draw(state_changes(version, stored))
            return RedactionPending(**changes, stored=stored, should_send=draw(flag))
        case 3:
            removed = draw(st.frozensets(nids))
            return RoomUnPartialStated(**draw(state_changes(version, None)), removed=removed)
        case 4:
            return OutOfRoomMembershipChanged(
                draw(positions), draw(nids), draw(names), draw(names), stored
            )
        case 5:
            return HistoryImported(
                draw(positions),
                draw(nids),
                draw(_several(version)),
                draw(st.none() | positions),
            )
        case _:
            return EventsStored(
                draw(positions),
                draw(nids),
                draw(_several(version)),
                draw(depths),
                draw(st.none() | redacted),
            )


receipts = st.builds(
    Receipt, names, names, st.none() | names, names, st.none() | positions, positions
)
plain_entries = st.one_of(
    st.builds(PartialRoomJoined, positions, nids, names, st.lists(names).map(tuple)),
    st.builds(EventsPurged, positions, nids, st.lists(nids).map(tuple), st.booleans()),
    st.builds(RoomDeleted, positions, nids, names),
    st.builds(PartialRoomReplaced, positions, nids),
    st.builds(PartialRoomLeft, positions, nids, names),
    st.builds(DirectoryVisibilityChanged, positions, nids, st.booleans()),
    st.builds(RoomAliasChanged, positions, names, st.none() | nids),
    st.builds(RoomAliasesMoved, positions, nids, nids),
    st.builds(AppserviceTransactionStored, positions, names),
    st.builds(NetworkListChanged, positions, names, names, nids, st.booleans()),
    st.builds(RoomForgotten, positions, names, nids),
    st.builds(
        ReceiptsChanged,
        positions,
        nids,
        st.lists(receipts, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(TypingChanged, positions, nids, names, st.booleans()),
    st.builds(
        PresenceChanged,
        positions,
        names,
        st.lists(nids).map(tuple),
        st.sampled_from(get_args(State)),
        st.none() | names,
        positions,
    ),
    st.builds(
        ThreadSubscriptionChanged, positions, nids, names, names, st.booleans(), st.booleans()
    ),
    st.builds(AccountDataChanged, positions, names, st.none() | names, names, st.binary()),
    st.builds(AccountDataErased, positions, names),
    st.builds(UserErased, positions, names),
    st.builds(ProfileChanged, positions, names, names, st.none() | st.binary()),
    st.builds(DeviceAdded, positions, names, names),
    st.builds(
        DeviceListChanged,
        positions,
        names,
        st.lists(nids).map(tuple),
        st.none() | names,
        positions,
        st.none() | positions,
    ),
    st.builds(UserSignaturesChanged, positions, names, st.lists(names).map(tuple)),
    st.builds(ClaimableKeysChanged, positions, names, st.lists(names).map(tuple)),
    st.builds(
        ToDeviceMessagesSent,
        positions,
        names,
        st.lists(st.tuples(names, st.binary())).map(tuple),
    ),
    st.builds(ToDeviceMessagesQueued, positions, names),
    st.builds(DeviceListsQueued, positions, st.lists(names).map(tuple)),
    st.builds(DeviceRenamed, positions, names, names),
    st.builds(DevicesRemoved, positions, names, st.lists(names).map(tuple)),
    st.builds(PushersChanged, positions, st.lists(names).map(tuple)),
    st.builds(PushProgressStored, positions),
    st.builds(ReaderMoved, positions),
    st.builds(SendingRecorded, positions),
)


def as_values(value: Any) -> Any:
    """An entry, or a part of it, as values that can be compared: stored events have no equality."""
    if isinstance(value, StoredEvent):
        names_of_parts = [name for name in StoredEvent.__slots__ if not name.startswith("_")]
        return [as_values(getattr(value, name)) for name in names_of_parts]
    if isinstance(value, Event):
        return value.event_id, value.room_id, value.json, value.version.identifier, value.pdu
    if isinstance(value, msgspec.Struct):
        parts = [as_values(getattr(value, name)) for name in value.__struct_fields__]
        return [type(value).__name__, *parts]
    if is_dataclass(value) and not isinstance(value, RoomVersion):
        parts = [as_values(getattr(value, field.name)) for field in fields(value)]
        return [type(value).__name__, *parts]
    if isinstance(value, Mapping):
        return {key: as_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple | deque):
        return [as_values(each) for each in value]
    return value
