"""Room configs: how many events of a room, and which parts of its state, a client wants.

A room that matches several lists and subscriptions gets the superset of their configs. Their
`required_state` is kept side by side: state is sent if any of them wants it.

Spec: MSC4186
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from homeserver.protocol.event_types import MEMBER

StateKey = tuple[str, str]  # type and state key


class StateElement(NamedTuple):
    """A type and a state key to match; `None` matches all."""

    type: str | None
    state_key: str | None


class RequiredState(msgspec.Struct, frozen=True, dict=True):
    """The state that one config wants: what is in `include`, except for what is in `exclude`.

    With `lazy_members` the members are left out that no element of `include` names by the type;
    those that the timeline needs are sent in any case.
    """

    include: frozenset[StateElement] = frozenset()
    exclude: frozenset[StateElement] = frozenset()
    lazy_members: bool = False

    def matches(self, key: StateKey) -> bool:
        """Whether the state with this type and state key is wanted."""
        return self._included.has(key) and not self._excluded.has(key)

    @property
    def wants_all_members(self) -> bool:
        """Whether every member event is wanted, but for single ones that are excluded."""
        return self._included.has_all_members and StateElement(MEMBER, None) not in self.exclude

    @property
    def single_keys(self) -> Collection[StateKey] | None:
        """All keys that may match, if each is named in full."""
        return self._included.single_keys

    @property
    def may_want_members(self) -> bool:
        """Whether any member event may match."""
        return self._included.may_have_members

    @cached_property
    def _included(self) -> "_Elements":
        return _Elements(self.include, are_members_lazy=self.lazy_members)

    @cached_property
    def _excluded(self) -> "_Elements":
        return _Elements(self.exclude)


class RoomConfig(msgspec.Struct, frozen=True, dict=True):
    """What a client wants of a room. `timeline_limit` counts events."""

    timeline_limit: int
    required_state: tuple[RequiredState, ...] = ()

    @classmethod
    def combined(cls, configs: Iterable["RoomConfig"]) -> "RoomConfig":
        """The superset of some configs, at least one."""
        found = dict.fromkeys(configs)
        if len(found) == 1:
            return next(iter(found))
        required = dict.fromkeys(state for config in found for state in config.required_state)
        return cls(max(config.timeline_limit for config in found), tuple(required))

    @cached_property
    def lazy_members(self) -> bool:
        """Whether the members that the timeline needs are sent."""
        return not self.wants_all_members and any(
            state.lazy_members for state in self.required_state
        )

    @cached_property
    def wants_all_members(self) -> bool:
        """Whether every member event is wanted."""
        return any(state.wants_all_members for state in self.required_state)

    def matches(self, key: StateKey) -> bool:
        """Whether the state with this type and state key is wanted."""
        return any(state.matches(key) for state in self.required_state)

    def candidates(
        self, others: Mapping[StateKey, int], members: Mapping[str, int]
    ) -> Iterator[StateKey]:
        """Keys of a state among which are all that match; `members` by user id.

        A room has many members: they are left out where none can match.
        """
        if self._single_keys is not None:
            for key in self._single_keys:
                if (key[1] in members) if key[0] == MEMBER else (key in others):
                    yield key
            return
        yield from others
        if any(state.may_want_members for state in self.required_state):
            for user_id in members:
                yield MEMBER, user_id

    @cached_property
    def _single_keys(self) -> Collection[StateKey] | None:
        found: dict[StateKey, None] = {}
        for state in self.required_state:
            keys = state.single_keys
            if keys is None:
                return None
            found.update(dict.fromkeys(keys))
        return found


class _Elements:
    """A set of elements, compiled for look-ups."""

    def __init__(
        self, elements: Collection[StateElement], *, are_members_lazy: bool = False
    ) -> None:
        self._all = StateElement(None, None) in elements
        self._are_members_lazy = are_members_lazy
        self._types = {each.type for each in elements if each.state_key is None}
        self._state_keys = {each.state_key for each in elements if each.type is None}
        self._keys = frozenset(
            (each.type, each.state_key)
            for each in elements
            if each.type is not None and each.state_key is not None
        )
        self.has_all_members = MEMBER in self._types or (self._all and not are_members_lazy)
        self.may_have_members = (
            self.has_all_members
            or any(key[0] == MEMBER for key in self._keys)
            or (bool(self._state_keys) and not are_members_lazy)
        )
        self.single_keys = (
            None if self._all or self._types - {None} or self._state_keys - {None} else self._keys
        )

    def has(self, key: StateKey) -> bool:
        """Whether any element matches a type and state key."""
        if key in self._keys or key[0] in self._types:
            return True
        if self._are_members_lazy and key[0] == MEMBER:
            return False
        return self._all or key[1] in self._state_keys
