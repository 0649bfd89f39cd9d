"""A reader: the device that asks, and how it wants to be answered."""

from dataclasses import dataclass, field

from homeserver.accounts.caller import Caller
from homeserver.protocol.filters import Filter

DEFAULT_TIMELINE = 10  # events
MAX_TIMELINE = 100


@dataclass(frozen=True, slots=True)
class Reader:
    """What one `/sync` request, or one WebSocket, asks for.

    `ignored` are users whose messages the reader does not want. `use_state_after` asks for the
    state at the end of each timeline in place of that at its start.
    """

    caller: Caller
    filter: Filter = field(default_factory=Filter)
    full_state: bool = False
    use_state_after: bool = False
    ignored: frozenset[str] = frozenset()

    @property
    def user_id(self) -> str:
        """The user whose device it is."""
        return self.caller.user_id

    @property
    def device(self) -> tuple[str, str]:
        """User id and device id: whose transaction ids to show."""
        return self.caller.user_id, self.caller.device_id or ""

    @property
    def lazy(self) -> bool:
        """Whether members are sent only where they are needed."""
        return self.filter.room.state.lazy_load_members

    @property
    def timeline_limit(self) -> int:
        """Most events of one room's timeline."""
        return self.filter.room.timeline.limit_or(DEFAULT_TIMELINE, MAX_TIMELINE)

    @property
    def is_plain(self) -> bool:
        """Whether timelines are shown to this reader as they are to all others."""
        return (
            self.filter.room.timeline.is_default
            and self.filter.room.timeline.matches_all_rooms
            and self.filter.event_fields is None
            and self.filter.event_format == "client"
        )
