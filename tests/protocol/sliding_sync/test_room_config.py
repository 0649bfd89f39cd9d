"""Room configs: what they match, and what several of them together match."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.sliding_sync.room_config import (
    MAX_REQUIRED_STATES,
    RequiredState,
    RoomConfig,
    StateElement,
)

ALICE = "@alice:a"
TYPES = ("m.room.member", "m.room.name", "x")
KEYS = ("", ALICE, "@bob:b")
ALL = [(event_type, key) for event_type in TYPES for key in KEYS]

elements = st.builds(
    StateElement, st.none() | st.sampled_from(TYPES), st.none() | st.sampled_from(KEYS)
)
required_states = st.builds(
    RequiredState,
    st.frozensets(elements, max_size=4),
    st.frozensets(elements, max_size=2),
    st.booleans(),
    st.frozensets(st.none() | st.sampled_from(TYPES), max_size=2),
)
configs = st.builds(RoomConfig, st.integers(0, 100), st.tuples(required_states))


def named(state: RequiredState, key: tuple[str, str]) -> bool:
    """The definition: whether any element names the key."""

    def has(found: frozenset[StateElement], *, lazy: bool) -> bool:
        return any(
            each.type in (None, key[0])
            and each.state_key in (None, key[1])
            and not (lazy and key[0] == "m.room.member" and each.type is None)
            for each in found
        )

    is_own = key[1] == ALICE and (None in state.own_types or key[0] in state.own_types)
    included = is_own or has(state.include, lazy=state.lazy_members)
    return included and not has(state.exclude, lazy=False)


@given(required_states)
def test_elements_match_as_defined(state: RequiredState) -> None:
    """The compiled form matches what the proposal says."""
    for key in ALL:
        assert state.matches(key, ALICE) == named(state, key)


@given(st.lists(configs, min_size=1, max_size=MAX_REQUIRED_STATES))
def test_combined_config_is_the_superset(several: list[RoomConfig]) -> None:
    """A room that is in several lists gets what any of them wants."""
    combined = RoomConfig.combined(several)

    assert combined.timeline_limit == max(config.timeline_limit for config in several)
    for key in ALL:
        assert combined.matches(key, ALICE) == any(each.matches(key, ALICE) for each in several)
    expected = any(
        state.lazy_members for config in several for state in config.required_state
    ) and not any(config.wants_all_members for config in several)
    assert combined.lazy_members == expected


@given(configs)
def test_matching_state_is_found(config: RoomConfig) -> None:
    """What is looked through has everything that matches, and nothing comes twice."""
    others = {key: number for number, key in enumerate(ALL) if key[0] != "m.room.member"}
    members = {key[1]: number for number, key in enumerate(ALL) if key[0] == "m.room.member"}

    found = config.matching(others, members, ALICE)

    assert sorted(found) == sorted(key for key in ALL if config.matches(key, ALICE))


def test_very_many_configs_are_still_a_superset() -> None:
    """A client cannot make the server compare each event with hundreds of configs."""
    several = [
        RoomConfig(
            1,
            (
                RequiredState(
                    frozenset({StateElement(None, None)}),
                    frozenset({StateElement("x", str(number))}),
                ),
            ),
        )
        for number in range(200)
    ]

    combined = RoomConfig.combined(several)

    assert len(combined.required_state) <= MAX_REQUIRED_STATES
    assert combined.matches(("x", "7"), ALICE)


def test_profiles_are_lazy_where_every_config_is() -> None:
    """A room that also matches a config without lazy loading brings all of its members."""
    lazy = RoomConfig(1, (RequiredState(lazy_members=True),))
    others = [RoomConfig(1), RoomConfig(1, (RequiredState(),))]
    named = StateElement("m.room.member", None)
    everybody = RoomConfig(1, (RequiredState(frozenset([named]), lazy_members=True),))

    assert lazy.lazy_profiles
    assert RoomConfig.combined([lazy, RoomConfig(5, lazy.required_state)]).lazy_profiles
    assert not any(each.lazy_profiles for each in [*others, everybody])
    assert not RoomConfig.combined([lazy, others[1]]).lazy_profiles
