"""Authorisation of events against a state that is still being built.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#definitions (iterative auth checks)
"""

from collections.abc import Collection, Iterable, Mapping, MutableMapping

from homeserver.protocol.authorization.auth_rules import AuthState, RuleBroken, check_auth
from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.event_types import CREATE, CREATE_KEY, POWER_LEVELS_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.room_versions import RoomVersion

StateKey = tuple[str, str]  # (type, state key)


class AuthChecks:
    """The authorisation rules over states of event ids.

    `events` has all events that are named anywhere. The power levels in an event are parsed once,
    however many events are checked against them.
    """

    def __init__(
        self, version: RoomVersion, events: Mapping[str, Event], rejected: Collection[str] = ()
    ) -> None:
        self._version = version
        self._events = events
        self._rejected = rejected
        self._levels: dict[tuple[str, str | None], PowerLevels] = {}

    def is_allowed(self, event: Event, state: Mapping[StateKey, str]) -> bool:
        """Whether the rules allow an event in this state alone."""
        return self._passes(event, self._found(self._wanted(event), state))

    def apply(self, state: MutableMapping[StateKey, str], ordered: Iterable[Event]) -> None:
        """The iterative auth checks: add to the state those events that it allows, in order.

        If the state lacks an event that the rules need, the event's own auth event is used instead,
        unless that was rejected.
        """
        for event in ordered:
            wanted = self._wanted(event)
            found = self._found(wanted, state)
            if len(found) < len(wanted):
                cited = self._cited(event)
                found |= {key: cited[key] for key in wanted - found.keys() if key in cited}
            if event.state_key is not None and self._passes(event, found):
                state[event.type, event.state_key] = event.event_id

    def sender_power(self, event: Event) -> int:
        """The power level of an event's sender by the event's auth events."""
        cited = self._cited(event, even_rejected=True)
        create = event if event.type == CREATE else cited.get(CREATE_KEY)
        if create is None:
            return 0
        return self._power_levels(create, cited.get(POWER_LEVELS_KEY)).of(event.sender)

    def _wanted(self, event: Event) -> set[StateKey]:
        """The entries of a state that an event is checked against."""
        keys = auth_types_for(
            self._version, event.type, event.sender, event.state_key, event.content
        )
        return {CREATE_KEY, *keys}

    def _found(
        self, wanted: Iterable[StateKey], state: Mapping[StateKey, str]
    ) -> dict[StateKey, Event]:
        return {key: self._events[state[key]] for key in wanted if key in state}

    def _cited(self, event: Event, *, even_rejected: bool = False) -> dict[StateKey, Event]:
        """The auth events of an event, with the create event that its room id implies."""
        cited_ids = event.auth_event_ids
        if self._version.room_id_is_create_hash and event.type != CREATE:
            cited_ids = ["$" + event.room_id[1:], *cited_ids]
        return {
            (cited.type, cited.state_key): cited
            for cited in map(self._events.__getitem__, cited_ids)
            if cited.state_key is not None
            and (even_rejected or cited.event_id not in self._rejected)
        }

    def _passes(self, event: Event, found: Mapping[StateKey, Event]) -> bool:
        state = AuthState(found)
        if (create := found.get(CREATE_KEY)) is not None:
            state.power_levels = self._power_levels(create, found.get(POWER_LEVELS_KEY))
        try:
            check_auth(event, state)
        except RuleBroken:
            return False
        return True

    def _power_levels(self, create: Event, event: Event | None) -> PowerLevels:
        source = (create.event_id, None if event is None else event.event_id)
        levels = self._levels.get(source)
        if levels is None:
            content = None if event is None else event.content
            levels = self._levels[source] = PowerLevels(create, content)
        return levels
