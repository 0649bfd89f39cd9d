"""The extension for sticky events: those of all rooms of the user that the timelines do not have.

As with messages to the device, the client says by a token which it has, and gets the oldest of the
others, a limited number at a time.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4480
"""

from collections.abc import Mapping

import msgspec

from homeserver.protocol.sliding_sync.request import StickyConfig
from homeserver.protocol.sliding_sync.response import RoomResult
from homeserver.rooms.history.own_membership import was_joined
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import Membership, UserRooms
from homeserver.streams.sync_tokens import PublishedPositions, SyncToken, parse_sync_token
from homeserver.sync.rendering import render_state
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sliding.extensions import ExtensionUpdate
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import encode


class StickyExtension:
    """Adds what the extension asks for."""

    def __init__(
        self, sections: StickySections, rooms: RoomRegistry, user_rooms: UserRooms
    ) -> None:
        self._sections = sections
        self._rooms = rooms
        self._user_rooms = user_rooms

    async def add(
        self,
        update: ExtensionUpdate,
        reader: SyncRequest,
        config: StickyConfig,
        now: PublishedPositions,
        results: Mapping[str, RoomResult],
    ) -> None:
        """Add the events that the client lacks; `results` has the timelines of the response.

        Raises `InvalidParam` for the client's token.
        """
        since = None if config.since is None else parse_sync_token(config.since)
        span, rooms = SyncSpan(since, now), dict[str, msgspec.Raw]()
        if not self._sections.rooms:
            return
        places = await self._user_rooms.of(reader.user_id)
        joined = {
            nid: places[nid]
            for nid in self._sections.rooms & places.keys()
            if places[nid].membership == "join" and places[nid].position <= span.of_room(nid)[1]
        }
        self._sections.limit(span, joined, config.limit)
        has_changed = False
        for nid, place in joined.items():
            room = await self._rooms.by_number(nid)
            if room is None:
                continue
            is_new = since is None or await self._is_new(room, reader.user_id, place, since)
            events = self._sections.of_room(span, nid, is_new=is_new)
            if not events:
                continue
            has_changed = True
            span.has_room(nid, span.of_room(nid)[1])
            result = results.get(room.room_id)
            shown = frozenset[str]() if result is None else result.event_ids
            wanted = await self._sections.wanted(room, reader, events, ())
            stored = [each for each in wanted if each.event.event_id not in shown]
            if stored:
                rendered = await render_state(reader, stored, self._rooms.local_server)
                rooms[room.room_id] = msgspec.Raw(b'{"events":%s}' % rendered)
        if has_changed:
            members = {"next_batch": span.token.text, "rooms": rooms}
            update.results.sticky = config.name, encode(members)
            update.is_new = update.is_new or bool(rooms)

    async def _is_new(self, room: Room, user_id: str, place: Membership, since: SyncToken) -> bool:
        """Whether the user has joined a room since a token."""
        at = since.of_room(room.room_nid)
        return place.position > at and not await was_joined(
            self._rooms, room, user_id, place.event, at
        )
