"""The extensions of a response: what it has beside rooms.

Spec: MSC4186
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.protocol.sliding_sync.request import ExtensionConfigs, ToDeviceConfig
from homeserver.protocol.sliding_sync.response import ExtensionResults
from homeserver.push.subscription_json import subscription_changes
from homeserver.push.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.tokens import parse_stream_token, stream_token
from homeserver.sync.active_rooms import ActiveRooms
from homeserver.sync.sections.account_data_sections import AccountDataSections
from homeserver.sync.sections.device_list_updates import NO_DEVICE_LIST_UPDATE
from homeserver.sync.sections.device_sections import DeviceSections
from homeserver.sync.sliding.connection import ConnectionState
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import Update, encode

_RawEvents = Sequence[msgspec.Raw]


class ExtensionUpdate(msgspec.Struct):
    """The extensions of one response while it is made. `is_new` if they have anything new.

    `account_data` is the changed account data of rooms by room id, and `all_account_data` gives all
    of a room, once any room needs it.
    """

    results: ExtensionResults = msgspec.field(default_factory=ExtensionResults)
    account_data: dict[str, list[msgspec.Raw]] = msgspec.field(default_factory=dict)
    all_account_data: Callable[[str], list[msgspec.Raw]] | None = None
    is_new: bool = False


class Extensions:
    """Adds what the extensions ask for."""

    def __init__(
        self,
        devices: DeviceSections,
        account_data: AccountData,
        receipts: Receipts,
        typing: TypingUsers,
        active_rooms: ActiveRooms,
        subscriptions: ThreadSubscriptions,
    ) -> None:
        self._devices = devices
        self._account_data = AccountDataSections(account_data)
        self._receipts = receipts
        self._typing = typing
        self._active_rooms = active_rooms
        self._subscriptions = subscriptions

    def received(self, request: SyncRequest, config: ToDeviceConfig | None) -> None:
        """The device has shown which messages it has. Raises `InvalidParam` for its token."""
        if config is not None and config.since is not None:
            self._devices.received_messages(request, parse_stream_token(config.since))

    def have_no_device_news(
        self,
        request: SyncRequest,
        wanted: ExtensionConfigs,
        state: ConnectionState,
        changed: Collection[int],
    ) -> bool:
        """Whether it is known, without waiting, that `to_device` and `e2ee` have nothing new.

        `changed` are the rooms, by numeric id, in which anything changed above the token, and
        nothing else did.
        """
        token = state.token
        if wanted.to_device is not None:
            since = wanted.to_device.since
            if since is None or not self._devices.has_no_messages(
                request, parse_stream_token(since)
            ):
                return False
        if not wanted.e2ee:
            return True
        if token is None or state.e2ee != token or not self._devices.has_no_news(request, token):
            return False
        rooms = [(nid, self._active_rooms.rooms.loaded(nid)) for nid in changed]
        return all(
            room is not None and room.members_changed_at <= token.of_room(nid)
            for nid, room in rooms
        )

    async def add_account_data(
        self, update: ExtensionUpdate, request: SyncRequest, state: ConnectionState, span: SyncSpan
    ) -> None:
        """Add global account data, and find that of rooms."""
        found = Update(SyncSpan(state.account_data, span.now))
        update.account_data = await self._account_data.add(found, request)
        update.results.account_data_global = [bytes(event) for event in found.account_data]
        update.is_new = update.is_new or bool(found.account_data)

    async def add_room_data(
        self, update: ExtensionUpdate, request: SyncRequest, room_id: str, *, is_first: bool
    ) -> None:
        """Add the account data of a room: all of it, if it is the first that the client gets."""
        if is_first:
            if update.all_account_data is None:
                update.all_account_data = await self._account_data.by_room(request)
            events: _RawEvents = update.all_account_data(room_id)
        else:
            events = update.account_data.get(room_id, ())
        if events:
            update.results.account_data_rooms[room_id] = [bytes(event) for event in events]
            update.is_new = True

    def may_have_receipts(self, room_nid: int, since: int) -> bool:
        """False if no receipt of a room changed above `since`; does not wait."""
        return self._receipts.may_have_changed(room_nid, since)

    def may_have_typing(self, room_nid: int, since: int) -> bool:
        """The same of who types there."""
        return self._typing.may_have_changed(room_nid, since)

    async def add_receipts(
        self,
        update: ExtensionUpdate,
        request: SyncRequest,
        room: Room,
        since: int | None,
        shown: Collection[str],
    ) -> None:
        """Add the receipts of a room above `since`.

        For `None` they are those of the user, and those of the events that are `shown`.
        """
        if since is None:
            event = await self._receipts.events_at(room, request.user_id, shown)
        else:
            event = await self._receipts.events_since(room, request.user_id, since)
        if event is not None:
            update.results.receipts[room.room_id] = bytes(event)
            update.is_new = True

    async def add_typing(
        self, update: ExtensionUpdate, request: SyncRequest, room: Room, since: int | None
    ) -> None:
        """Add who types in a room, if that changed above `since`."""
        for event in await self._typing.ephemeral_events(room, request.user_id, since):
            update.results.typing[room.room_id] = bytes(event)
            update.is_new = True

    async def add_messages(
        self, update: ExtensionUpdate, request: SyncRequest, config: ToDeviceConfig, span: SyncSpan
    ) -> None:
        """Add messages to the device."""
        after = 0 if config.since is None else parse_stream_token(config.since)
        upto = max(after, span.upto_of_user(request.user_id))
        messages = await self._devices.messages(request, after, upto, config.limit)
        if not messages.events and config.since is not None:
            return
        next_batch = stream_token(upto if messages.more_above is None else messages.last)
        update.results.to_device = b'{"next_batch":%s,"events":[%s]}' % (
            encode(next_batch),
            b",".join(messages.events),
        )
        update.results.to_device_next = next_batch
        update.is_new = update.is_new or bool(messages.events)

    async def add_threads(
        self,
        update: ExtensionUpdate,
        request: SyncRequest,
        state: ConnectionState,
        span: SyncSpan,
        limit: int,
    ) -> None:
        """Add the latest changes of the user's subscriptions to threads.

        Where there are more, `prev_batch` is a token from which the endpoint of MSC4308 continues.
        """
        user_id = request.user_id
        after = 0 if state.threads is None else state.threads.of_user(user_id)
        upto = span.upto_of_user(user_id)
        page = await self._subscriptions.changes(user_id, after=after, upto=upto, limit=limit)
        if page.changes:
            members = subscription_changes(page)
            if page.end is not None:
                members["prev_batch"] = stream_token(page.end)
            update.results.threads = encode(members)
            update.is_new = True
            span.has_user(user_id)

    async def add_e2ee(
        self,
        update: ExtensionUpdate,
        request: SyncRequest,
        state: ConnectionState,
        span: SyncSpan,
        changed: set[int] | None,
        places: MemberRooms,
    ) -> None:
        """Add what is left of the device's keys, and whose devices changed."""
        if request.caller.device_id is None:
            return
        found = Update(SyncSpan(state.e2ee, span.now))
        await self._devices.add_counts(found, request)
        if state.e2ee is not None:
            if changed is None or state.e2ee != state.token:
                changed = None
                rooms: Iterable[int] = await self._active_rooms.since(places, state.e2ee)
            else:
                rooms = changed
            await self._devices.add_lists(found, request, places, changed, rooms)
        counts = found.key_counts
        members = {
            "device_one_time_keys_count": counts.one_time,
            "device_unused_fallback_key_types": counts.unused_fallback,
        }
        lists = found.device_lists
        if lists is not NO_DEVICE_LIST_UPDATE:
            members["device_lists"] = {
                "changed": sorted(lists.changed),
                "left": sorted(lists.left),
            }
        update.results.e2ee = encode(members)
        is_new = found.has_new_key_counts or lists is not NO_DEVICE_LIST_UPDATE
        update.is_new = update.is_new or is_new
