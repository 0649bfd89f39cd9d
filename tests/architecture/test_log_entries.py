"""Every class of log entries is registered with the codec by which other processes read them."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

import appservices
import federation
import homeserver
from homeserver.rooms.room.changes import EventAppended
from homeserver.wiring.entry_kinds import entry_codec

# Values with a position that are not appended to the log, each with its place.
NOT_APPENDED = {
    "homeserver.rooms.room.room.StateChange": "kept by a room",
    "homeserver.rooms.room.user_rooms._MembershipChanged": "part of an entry, for one user",
    "federation.sending.destination_queue.QueuedPdu": "in the queue of a destination",
    "federation.sending.edu_outbox.OutboxItem": "a row of an outbox",
    "federation.sending.server_joins.ServerJoined": "an item of a durable reader",
    "federation.sending.device_list_items._Join": "a part of an item of a durable reader",
    "federation.sending.device_list_items.OwnListChanged": "an item of a durable reader",
    "federation.sending.device_list_items.UsersMet": "an item of a durable reader",
    "federation.sending.device_list_items.MembersKnown": "an item of a durable reader",
    **{
        f"appservices.transactions.items.{item}": "an item of a durable reader"
        for item in (
            "EventItem",
            "TypingItem",
            "ReceiptsItem",
            "PresenceItem",
            "ToDeviceItem",
            "DeviceListItem",
            "KeyCountsItem",
            "ItemGroup",
        )
    },
    "homeserver.user_directory.changes.RoomUsersChanged": "an item of a durable reader",
    "homeserver.user_directory.changes.LocalProfileChanged": "an item of a durable reader",
    "homeserver.storage.user_directory.sources.ChangedMembers": (
        "a part of an item of a durable reader"
    ),
    "homeserver.rooms.history.timeline_source.TimelineEvent": "an item of a durable reader",
    "homeserver.push.unread_counter.PushAction": "part of an unread count",
    "homeserver.push.unread_counter.OwnEvent": "part of an unread count",
    "homeserver.push.pushers.push_items.PushItem": "an item of a durable reader",
    "homeserver.push.pushers.queued_push.QueuedPush": "in the queue of a pusher",
    "homeserver.search.indexed_events.RemovedEvent": "an item of a durable reader",
    "homeserver.rooms.lifecycle.upgrade_migration.LocalJoin": "an item of a durable reader",
    "homeserver.rooms.membership.guest_access.GuestAccessChanged": "an item of a durable reader",
    "homeserver.encryption.remote.unshared_lists.MembershipEnded": "an item of a durable reader",
    "homeserver.rooms.membership.profile_propagation.MemberProfileChanged": (
        "an item of a durable reader"
    ),
}


def name_of(entry: type) -> str:
    return f"{entry.__module__}.{entry.__qualname__}"


def test_each_log_entry_has_a_codec() -> None:
    """A user on another process would never see the change."""
    registered = {name_of(entry) for entry in entry_codec().classes}

    assert {*map(name_of, log_entries())} - NOT_APPENDED.keys() == registered


def test_exceptions_are_needed() -> None:
    """An exception that is not needed any more is removed."""
    assert NOT_APPENDED.keys() <= {*map(name_of, log_entries())}


def test_log_entries_are_found() -> None:
    """The search finds what it should find."""
    assert EventAppended in log_entries()


def log_entries() -> set[type]:
    """The immutable classes that begin with a position, as `LogEntry` requires."""
    return {
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and _is_entry(value)
    }


def _is_entry(value: Any) -> bool:
    if issubclass(value, msgspec.Struct):
        config = value.__struct_config__
        is_wire_form = config.array_like
        return config.frozen and not is_wire_form and value.__struct_fields__[:1] == ("position",)
    return (
        is_dataclass(value)
        and value.__dataclass_params__.frozen  # type: ignore[attr-defined]
        and [each.name for each in fields(value)][:1] == ["position"]
    )


def _modules() -> Iterator[Any]:
    for package in (homeserver, federation, appservices):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)
