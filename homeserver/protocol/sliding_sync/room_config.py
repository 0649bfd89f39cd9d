"""Room configs: how many events of a room, and which parts of its state, a client wants.

A room that matches several lists and subscriptions gets the superset of their configs: state is
sent if any of them wants it. What excludes different state, or loads members in another way, is
kept side by side; beyond a bound nothing is excluded, which is a superset too.

Spec: MSC4186
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from homeserver.protocol.event_types import MEMBER

StateKey = tuple[str, str]  # type and state key
MAX_REQUIRED_STATES = 8  # of a room, that exclude different state


class StateElement(NamedTuple):
    """A type and a state key to match; `None` matches all."""

    type: str | None
    state_key: str | None


class RequiredState(msgspec.Struct, frozen=True, dict=True):
    """The state that one config wants: what is in `include`, except for what is in `exclude`.

    `own_types` are types of which it wants the state whose state key is the user's id; `None` among
    them stands for all. With `lazy_members` the members are left out that no element of `include`
    names by the type; those that the timeline needs are sent in any case.
    """

    include: frozenset[StateElement] = frozenset()
    exclude: frozenset[StateElement] = frozenset()
    lazy_members: bool = False
    own_types: frozenset[str | None] = frozenset()

    def matches(self, key: StateKey, user_id: str) -> bool:
        """Whether a user wants the state with this type and state key."""
        if not self._included.has(key):
            own = self.own_types
            if not own or key[1] != user_id or not (key[0] in own or None in own):
                return False
        return not self._excluded.has(key)

    @property
    def wants_all_members(self) -> bool:
        """Whether every member event is wanted, but for single ones that are excluded."""
        return self._included.has_all_members and StateElement(MEMBER, None) not in self.exclude

    @property
    def may_want_members(self) -> bool:
        """Whether any member event may match that is not the user's own."""
        return self._included.may_have_members

    @property
    def single_keys(self) -> Collection[StateKey] | None:
        """All keys that may match beside the user's own, if each is named in full."""
        return None if None in self.own_types else self._included.single_keys

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
        states = dict.fromkeys(state for config in found for state in config.required_state)
        return cls(max(config.timeline_limit for config in found), _merged(states))

    @cached_property
    def lazy_members(self) -> bool:
        """Whether the members that the timeline needs are sent."""
        return not self.wants_all_members and any(
            state.lazy_members for state in self.required_state
        )

    @cached_property
    def lazy_profiles(self) -> bool:
        """Whether the profiles of members are wanted only with what they sent.

        For a room that also matches a config without lazy loading they are wanted of all members.
        """
        states = self.required_state
        return (
            bool(states)
            and all(state.lazy_members for state in states)
            and not self.wants_all_members
        )

    @cached_property
    def wants_all_members(self) -> bool:
        """Whether every member event is wanted."""
        return any(state.wants_all_members for state in self.required_state)

    def matches(self, key: StateKey, user_id: str) -> bool:
        """Whether a user wants the state with this type and state key."""
        return any(state.matches(key, user_id) for state in self.required_state)

    def matching(
        self, others: Mapping[StateKey, int], members: Mapping[str, int], user_id: str
    ) -> list[StateKey]:
        """The keys of a state that a user wants; `members` are by user id."""
        candidates = self._candidates(others, members, user_id)
        return [key for key in dict.fromkeys(candidates) if self.matches(key, user_id)]

    def _candidates(
        self, others: Mapping[StateKey, int], members: Mapping[str, int], user_id: str
    ) -> Iterator[StateKey]:
        """Keys among which are all that match.

        A room has many members: they are left out where none can match.
        """
        own = [(event_type, user_id) for event_type in self._own_types]
        if self._single_keys is None:
            yield from others
            if any(state.may_want_members for state in self.required_state):
                for member in members:
                    yield MEMBER, member
            elif user_id in members:
                yield MEMBER, user_id
            return
        for key in (*self._single_keys, *own):
            if (key[1] in members) if key[0] == MEMBER else (key in others):
                yield key

    @cached_property
    def _own_types(self) -> Collection[str]:
        types = {each for state in self.required_state for each in state.own_types}
        return [each for each in types if each is not None]

    @cached_property
    def _single_keys(self) -> Collection[StateKey] | None:
        found: dict[StateKey, None] = {}
        for state in self.required_state:
            keys = state.single_keys
            if keys is None:
                return None
            found.update(dict.fromkeys(keys))
        return found


def _merged(states: Iterable[RequiredState]) -> tuple[RequiredState, ...]:
    """As few required states as possible that want what any of these wants."""
    alike: dict[tuple[frozenset[StateElement], bool], list[RequiredState]] = {}
    for state in states:
        alike.setdefault((state.exclude, state.lazy_members), []).append(state)
    if len(alike) > MAX_REQUIRED_STATES:
        return _merged(msgspec.structs.replace(state, exclude=frozenset()) for state in states)
    return tuple(
        RequiredState(
            frozenset().union(*(state.include for state in group)),
            exclude,
            lazy_members,
            frozenset().union(*(state.own_types for state in group)),
        )
        for (exclude, lazy_members), group in alike.items()
    )


class _Elements:
    """A set of elements, compiled for look-ups."""

    def __init__(
        self, elements: Collection[StateElement], *, are_members_lazy: bool = False
    ) -> None:
        self._all = StateElement(None, None) in elements
        self._are_members_lazy = are_members_lazy
        self._types = {
            each.type for each in elements if each.state_key is None and each.type is not None
        }
        self._state_keys = {
            each.state_key for each in elements if each.type is None and each.state_key is not None
        }
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
        is_open = self._all or self._types or self._state_keys
        self.single_keys = None if is_open else self._keys

    def has(self, key: StateKey) -> bool:
        """Whether any element matches a type and state key."""
        if key in self._keys or key[0] in self._types:
            return True
        if self._are_members_lazy and key[0] == MEMBER:
            return False
        return self._all or key[1] in self._state_keys
