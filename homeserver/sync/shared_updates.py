"""Shared updates: one change and nothing else, made once for all devices that see it.

Most updates have a new message, or a change of presence, and are the same for all members of a
room. Here everything in which devices may differ is compared, without waiting. For a device that
has other news, sees the change in another way or asks for more, the engine makes an update section
by section, with the same bytes where the content is the same.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from homeserver.encryption.key_counts import KeyCounts
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.device_sections import DeviceSections
from homeserver.sync.sections.shared_sections import SharedSections
from homeserver.sync.sources import Sources
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import Update
from homeserver.sync.user_change_queues import (
    PRESENCE,
    SUBSCRIPTIONS,
    USER_DATA,
    UserChangeQueues,
)

MAX_UPDATES = 64  # that are kept for other readers
MAX_CONTENT = 16_384  # bytes of a room section, or of a presence event, of one of these

_Key = tuple[int, int, str, bytes, bytes]


class SharedUpdates:
    """Finds the updates that are shared."""

    def __init__(
        self,
        sources: Sources,
        change_queues: UserChangeQueues,
        sections: SharedSections,
        devices: DeviceSections,
    ) -> None:
        self._log = sources.log
        self._user_rooms = sources.user_rooms
        self._presence = sources.presence
        self._change_queues = change_queues
        self._sections = sections
        self._devices = devices
        # By both ends of the span, the room (empty for presence), the content, and the key counts.
        self._updates: dict[_Key, Update] = {}

    def find(self, request: SyncRequest, since: SyncToken) -> Update | None:
        """The update of a device above its token; `None` if it has to be made section by section.

        It is shared: do not change it.
        """
        queue = self._change_queues.loaded(request.user_id)
        if queue is None or not request.is_common or since.ahead or since.sticky is not None:
            return None
        what = queue.only_change_since(since.base)
        if what is None or what == USER_DATA or what >= SUBSCRIPTIONS:
            return None
        rooms = self._user_rooms.loaded(request.user_id)
        counts = self._devices.counts_without_news(request, since)
        now = self._log.seen.snapshot().even
        if rooms is None or counts is None or now is None:
            return None
        if what <= PRESENCE:
            return self._of_presence(request, rooms, since, now, counts)
        return self._of_room(what, request, rooms, since, now, counts)

    def _of_room(
        self,
        room_nid: int,
        request: SyncRequest,
        rooms: MemberRooms,
        since: SyncToken,
        now: SyncToken,
        counts: KeyCounts,
    ) -> Update | None:
        place = rooms.get(room_nid)
        if place is None or place.membership != "join" or place.position > since.base:
            return None
        found = self._sections.find(room_nid, request, since.base, now.base)
        if found is None:
            return None
        room_id, section = found
        key = since.base, now.base, room_id, section, counts.members
        return self._updates.get(key) or self._keep(
            key, Update(SyncSpan(since, now), joined={room_id: section}, key_counts=counts)
        )

    def _of_presence(
        self,
        request: SyncRequest,
        rooms: MemberRooms,
        since: SyncToken,
        now: SyncToken,
        counts: KeyCounts,
    ) -> Update | None:
        event = self._presence.only_event_since(request.user_id, since, rooms)
        if event is None:
            return None
        key = since.base, now.base, "", bytes(event), counts.members
        return self._updates.get(key) or self._keep(
            key, Update(SyncSpan(since, now), presence=[event], key_counts=counts)
        )

    def _keep(self, key: _Key, update: Update) -> Update:
        if len(key[3]) <= MAX_CONTENT:
            if len(self._updates) >= MAX_UPDATES:
                self._updates.clear()
            self._updates[key] = update
        return update
