"""The parameters of one sync: the requesting device, its filter, and the format it wants."""

from dataclasses import dataclass, field

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.filters import Filter
from homeserver.protocol.proposals.unstable_names import UNSTABLE_USERS

DEFAULT_TIMELINE = 10  # events
MAX_TIMELINE = 100

NO_FILTER = Filter()

STATE_AFTER = "state_after"
USERS = "users"
NO_FIELDS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The parameters of one `/sync` request, of one WebSocket, or of a room of sliding sync.

    `ignored` are users whose messages the user does not want. `state_after` asks for the state at
    the end of each timeline in place of that at its start, under this name. `connection` is that of
    sliding sync, and `None` for `/sync`.
    """

    caller: Requester
    filter: Filter = field(default_factory=Filter)
    full_state: bool = False
    state_after: str | None = None
    ignored: frozenset[str] = frozenset()
    connection: str | None = None
    # Derived from the above, and read with every delivery.
    user_id: str = field(init=False)
    device: tuple[str, str] = field(init=False)  # the one whose transaction ids are shown
    recipient: tuple[str, ...] = field(init=False)  # what lazily loaded members were sent to
    timeline_limit: int = field(init=False)  # events of one room's timeline, at most
    is_plain: bool = field(init=False)  # whether timelines are shown as they are to all others
    profile_fields: frozenset[str] = field(init=False)  # of the profiles of users, that are wanted
    is_common: bool = field(init=False)  # whether it asks for nothing that others do not get

    def __post_init__(self) -> None:
        caller, timeline = self.caller, self.filter.room.timeline
        note = object.__setattr__
        note(self, "user_id", caller.user_id)
        device = caller.user_id, caller.transaction_scope
        note(self, "device", device)
        note(self, "recipient", device if self.connection is None else (*device, self.connection))
        note(self, "timeline_limit", timeline.limit_or(DEFAULT_TIMELINE, MAX_TIMELINE))
        fields = self.filter.profile_fields or self.filter.unstable_profile_fields
        note(self, "profile_fields", NO_FIELDS if fields is None else frozenset(fields.ids))
        note(
            self,
            "is_plain",
            timeline.is_default
            and timeline.matches_all_rooms
            and self.filter.event_fields is None
            and self.filter.event_format == "client",
        )
        note(
            self,
            "is_common",
            self.is_plain
            and not self.full_state
            and not self.profile_fields
            and self.connection is None
            and self.filter.presence.is_default
            and self.filter.room.matches_all_rooms
            and self.filter.room.ephemeral.is_default
            and self.filter.room.ephemeral.matches_all_rooms,
        )

    @property
    def use_state_after(self) -> bool:
        """Whether the client wants the state at the end of each timeline."""
        return self.state_after is not None

    @property
    def state_name(self) -> str:
        """The name of the member of a room section that has the state."""
        return self.state_after or "state"

    @property
    def users_name(self) -> str:
        """The name of the section that has profiles: the unstable one for an unstable filter."""
        return UNSTABLE_USERS if self.filter.profile_fields is None else USERS

    @property
    def lazy(self) -> bool:
        """Whether the client lazy-loads members."""
        return self.filter.room.state.lazy_load_members
