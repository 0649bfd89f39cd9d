"""A reader: the device that asks, and how it wants to be answered."""

from dataclasses import dataclass, field

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.filters import Filter

DEFAULT_TIMELINE = 10  # events
MAX_TIMELINE = 100

STATE_AFTER = "state_after"
UNSTABLE_STATE_AFTER = "org.matrix.msc4222.state_after"
"""The name of the same member before it was part of the specification; some clients know no other.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What one `/sync` request, or one WebSocket, asks for.

    `ignored` are users whose messages the reader does not want. `state_after` asks for the state at
    the end of each timeline in place of that at its start, under this name.
    """

    caller: Requester
    filter: Filter = field(default_factory=Filter)
    full_state: bool = False
    state_after: str | None = None
    ignored: frozenset[str] = frozenset()
    # What follows from these, and is asked for with every delivery.
    user_id: str = field(init=False)
    device: tuple[str, str] = field(init=False)  # whose transaction ids to show
    timeline_limit: int = field(init=False)  # most events of one room's timeline
    is_plain: bool = field(init=False)  # whether timelines are shown as they are to all others

    def __post_init__(self) -> None:
        caller, timeline = self.caller, self.filter.room.timeline
        note = object.__setattr__
        note(self, "user_id", caller.user_id)
        note(self, "device", (caller.user_id, caller.device_id or ""))
        note(self, "timeline_limit", timeline.limit_or(DEFAULT_TIMELINE, MAX_TIMELINE))
        note(
            self,
            "is_plain",
            timeline.is_default
            and timeline.matches_all_rooms
            and self.filter.event_fields is None
            and self.filter.event_format == "client",
        )

    @property
    def use_state_after(self) -> bool:
        """Whether the state at the end of each timeline is wanted."""
        return self.state_after is not None

    @property
    def state_name(self) -> str:
        """The name of the member of a room section that has the state."""
        return self.state_after or "state"

    @property
    def lazy(self) -> bool:
        """Whether members are sent only where they are needed."""
        return self.filter.room.state.lazy_load_members
