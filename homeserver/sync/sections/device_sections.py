"""What an update has for the device that asks: messages, its keys, and whose devices changed.

Spec: https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync
"""

from collections.abc import Iterable

from homeserver.encryption.device_inboxes import DeviceInboxes, Messages
from homeserver.encryption.key_counts import NO_KEYS, DeviceKeyCounts, KeyCounts
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.device_list_updates import DeviceListUpdates
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update
from homeserver.sync.user_change_queues import DEVICE_LISTS


class DeviceSections:
    """Adds them to updates."""

    def __init__(
        self, inboxes: DeviceInboxes, counts: DeviceKeyCounts, lists: DeviceListUpdates
    ) -> None:
        self._inboxes = inboxes
        self._counts = counts
        self.lists = lists

    def received(self, request: SyncRequest, token: SyncToken) -> None:
        """A device has shown that it has received everything up to a token."""
        self.received_messages(request, token.of_device(request.user_id))

    def received_messages(self, request: SyncRequest, upto: int) -> None:
        """A device has shown that it has received all messages up to a position."""
        if request.caller.device_id is not None:
            self._inboxes.received(request.device, upto)

    def has_no_news(self, request: SyncRequest, since: SyncToken) -> bool:
        """Whether it is known, without waiting, that `add_own` would add nothing that is new."""
        return self.counts_without_news(request, since) is not None

    def counts_without_news(self, request: SyncRequest, since: SyncToken) -> KeyCounts | None:
        """What `add_own` would add, if it is known that none of it is new above a token."""
        if request.caller.device_id is None:
            return NO_KEYS
        device, user_id = request.device, request.user_id
        counts = self._counts.find(device)
        if (
            counts is not None
            and counts.changed_at <= since.of_user(user_id)
            and self._inboxes.has_none(device, since.of_device(user_id))
        ):
            return counts
        return None

    async def add_own(self, update: Update, request: SyncRequest) -> None:
        """Add messages to the device, and what is left of its keys."""
        if request.caller.device_id is None:
            return
        await self.add_counts(update, request)
        device, user_id, since = request.device, request.user_id, update.span.since
        after = 0 if since is None else since.of_device(user_id)
        if not self._inboxes.has_none(device, after):
            upto = update.span.upto_of_user(user_id)
            messages = await self._inboxes.messages(device, after, upto)
            update.to_device = messages.events
            if messages.events:
                update.span.has_user(user_id)
            if messages.more_above is not None:
                update.span.has_messages(messages.more_above)

    def has_no_messages(self, request: SyncRequest, after: int) -> bool:
        """Whether it is known, without waiting, that a device has no message above a position."""
        device_id = request.caller.device_id
        return device_id is None or self._inboxes.has_none(request.device, after)

    async def messages(self, request: SyncRequest, after: int, upto: int, limit: int) -> Messages:
        """The messages to a device with `after < position <= upto`; at most `limit` of them."""
        if self.has_no_messages(request, after):
            return Messages((), after, None)
        return await self._inboxes.messages(request.device, after, upto, limit)

    async def add_counts(self, update: Update, request: SyncRequest) -> None:
        """Add what is left of the keys of the device, which must have an id."""
        device, user_id, since = request.device, request.user_id, update.span.since
        counts = self._counts.find(device)
        if counts is None:
            counts = await self._counts.of(device)
        update.key_counts = counts
        if since is not None and counts.changed_at > since.of_user(user_id):
            update.has_new_key_counts = True
            update.span.has_user(user_id)

    async def add_lists(
        self,
        update: Update,
        request: SyncRequest,
        memberships: MemberRooms,
        changed: set[int] | None,
        candidates: Iterable[int],
    ) -> None:
        """Add the users whose devices changed, to an update above a token.

        `changed` is what changed for the user, `None` where everything may have; `candidates` are
        the rooms to compare.
        """
        since = update.span.since
        if since is None:
            return
        lists_changed = changed is None or max(changed, default=0) >= DEVICE_LISTS
        update.device_lists = await self.lists.since(
            request.user_id, since, memberships, candidates, lists_changed=lists_changed
        )
        positions = update.device_lists.positions
        update.span.has_users(positions.items())
        if positions:
            # Among them may be users whose keys the user signed: with that, it is their own shard.
            update.span.has_user(request.user_id)
