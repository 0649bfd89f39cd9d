"""This server as the author of events: its name, its signing key, and its clock."""

from collections.abc import Sequence

import msgspec

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.protocol.errors import BadJson, TooLarge
from homeserver.protocol.events import (
    Event,
    EventTooLarge,
    InvalidEvent,
    build_event,
)
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.event_draft import EventDraft


class LocalServer(msgspec.Struct, frozen=True):
    """Makes the events of local users."""

    server_name: str
    key: SigningKey
    clock: Clock

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(wall_seconds(self.clock) * 1000)

    def is_local(self, identifier: str) -> bool:
        """Whether a user id or an alias belongs to this server."""
        return identifier.partition(":")[2] == self.server_name

    def sign_event(
        self,
        version: RoomVersion,
        draft: EventDraft,
        *,
        room_id: str | None,
        prev_events: Sequence[Event] = (),
        auth_events: Sequence[Event] = (),
        depth: int = 1,
    ) -> Event:
        """The event that a draft becomes at this place of the graph.

        Raises `TooLarge` or `BadJson` if the draft makes no valid event.
        """
        timestamp = draft.origin_server_ts
        try:
            return build_event(
                version,
                room_id=room_id,
                type=draft.type,
                sender=draft.sender,
                content=draft.content,
                state_key=draft.state_key,
                prev_events=prev_events,
                auth_events=auth_events,
                depth=depth,
                origin_server_ts=self.now_ms() if timestamp is None else timestamp,
                redacts=draft.redacts,
                members={} if draft.sticky is None else draft.sticky.members,
                server_name=self.server_name,
                key=self.key,
            )
        except EventTooLarge as error:
            raise TooLarge(str(error)) from error
        except InvalidEvent as error:
            raise BadJson(str(error)) from error
