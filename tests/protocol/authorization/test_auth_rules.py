"""Authorisation of events: all rules but those on membership and power levels."""

from typing import Any

import pytest

from homeserver.protocol.authorization.auth_rules import (
    AuthState,
    RuleBroken,
    check_auth,
)
from homeserver.protocol.events import Event
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    NEWEST,
    assert_refused,
    create,
    event,
    message,
    room,
    room_id_of,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
with_hash_room_id = pytest.mark.parametrize("version", versions(room_id_is_create_hash=True))
with_named_room_id = pytest.mark.parametrize("version", versions(room_id_is_create_hash=False))


def state_event(event_type: str, *, by: str, version: str = NEWEST, key: str = "") -> Event:
    return event(event_type, by=by, version=version, state_key=key)


# Create


@every_version
def test_a_room_is_created(version: str) -> None:
    """The first event needs no state."""
    check_auth(create(version), AuthState({}))


@every_version
def test_a_create_event_follows_nothing(version: str) -> None:
    """A room cannot be created twice."""
    again = event(
        "m.room.create",
        by=ALICE,
        version=version,
        content={"creator": ALICE},
        state_key="",
        prev=[create(version)],
    )

    assert_refused(again, room(version), rule="1.1")


@with_named_room_id
def test_a_room_is_created_on_the_server_that_its_id_names(version: str) -> None:
    """No server creates rooms in the name of another."""
    assert_refused(create(version, by=CAROL), AuthState({}), rule="1.2")


@with_hash_room_id
def test_the_create_event_does_not_name_the_room_that_it_makes(version: str) -> None:
    """The room id is a hash of the event, which cannot contain it."""
    named = event(
        "m.room.create", by=ALICE, version=version, state_key="", prev=[], room_id="!other_room"
    )
    pdu = {**named.pdu, "room_id": "!other_room"}

    assert_refused(Event(named.version, pdu, b"", named.event_id), AuthState({}), rule="1.2")


@every_version
@pytest.mark.parametrize("room_version", ["0", "org.example.mine", 12, None])
def test_a_room_has_a_version_that_is_known(version: str, room_version: object) -> None:
    """Unknown rules cannot be followed."""
    assert_refused(create(version, room_version=room_version), AuthState({}), rule="1.3")


@pytest.mark.parametrize("version", versions(creator_in_content=True))
def test_an_old_create_event_names_the_creator(version: str) -> None:
    """Until version 10 everything that the creator may do depends on that field."""
    nameless = event("m.room.create", by=ALICE, version=version, state_key="", prev=[])

    with pytest.raises(RuleBroken) as broken:
        check_auth(nameless, AuthState({}))

    assert broken.value.rule == "1.4"


@pytest.mark.parametrize("version", versions(creator_in_content=False))
def test_a_new_create_event_need_not_name_the_creator(version: str) -> None:
    """The sender is the creator."""
    check_auth(
        event("m.room.create", by=ALICE, version=version, state_key="", prev=[]), AuthState({})
    )


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=True))
@pytest.mark.parametrize("creators", [None, BOB, {BOB: 1}, [1], ["bob"], [BOB, "@bob"]])
def test_additional_creators_are_a_list_of_users(version: str, creators: object) -> None:
    """Power that no one can revoke is granted to users only."""
    assert_refused(create(version, additional_creators=creators), AuthState({}), rule="1.4")


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=False))
def test_additional_creators_are_ignored_in_old_rooms(version: str) -> None:
    """A field without meaning cannot be wrong."""
    check_auth(create(version, additional_creators="nonsense"), AuthState({}))


# The room


@pytest.mark.parametrize("version", versions(create_in_auth_events=True))
def test_a_room_without_create_event_accepts_nothing(version: str) -> None:
    """An event outside of any room is refused."""
    with pytest.raises(RuleBroken) as broken:
        check_auth(message(by=ALICE, version=version), AuthState({}))

    assert broken.value.rule == "2.4"


@with_hash_room_id
def test_the_room_id_names_the_create_event(version: str) -> None:
    """An event cannot be inserted into the state of a room with another create event."""
    stray = event("m.room.message", by=ALICE, version=version, room_id="!other_room")

    assert_refused(stray, room(version), rule="2")
    assert_refused(message(by=ALICE, version=version), AuthState({}), rule="2")


@every_version
def test_a_room_can_be_closed_to_other_servers(version: str) -> None:
    """Messages in a company's room stay on its server."""
    creation = {"m.federate": False}
    state = room(version, members=(ALICE, BOB, CAROL), creation=creation, join_rule="public")
    here = state.create.room_id

    check_auth(event("m.room.message", by=BOB, version=version, room_id=here), state)
    assert_refused(
        event("m.room.message", by=CAROL, version=version, room_id=here), state, rule="4"
    )


@every_version
@pytest.mark.parametrize("value", [True, None, 0, "false"])
def test_only_false_closes_a_room(version: str, value: object) -> None:
    """Anything else in `m.federate` leaves it open."""
    state = room(version, members=(ALICE, CAROL), creation={"m.federate": value})
    sent = event("m.room.message", by=CAROL, version=version, room_id=state.create.room_id)

    check_auth(sent, state)


# Aliases


@pytest.mark.parametrize("version", versions(special_case_aliases_auth=True))
def test_a_server_announces_its_aliases_in_an_old_room(version: str) -> None:
    """Even if the user who sent it has long left."""
    aliases = state_event("m.room.aliases", by=CAROL, version=version, key="two.example")

    check_auth(aliases, room(version))


@pytest.mark.parametrize("version", versions(special_case_aliases_auth=True))
@pytest.mark.parametrize(("key", "rule"), [(None, "4.1"), ("one.example", "4.2"), (CAROL, "4.2")])
def test_a_server_announces_its_own_aliases_only(version: str, key: str | None, rule: str) -> None:
    """No server claims aliases of another server."""
    aliases = event("m.room.aliases", by=CAROL, version=version, state_key=key)

    with pytest.raises(RuleBroken) as broken:
        check_auth(aliases, room(version, members=(ALICE, CAROL)))

    assert broken.value.rule == rule


@pytest.mark.parametrize("version", versions(special_case_aliases_auth=False))
def test_aliases_are_like_any_state_from_version_6_on(version: str) -> None:
    """There, the power level of state events counts."""
    aliases = state_event("m.room.aliases", by=CAROL, version=version, key="two.example")

    assert_refused(aliases, room(version), rule="6")
    assert_refused(aliases, room(version, members=(ALICE, CAROL), users={}), rule="8")


# Messages and state


@every_version
def test_members_talk(version: str) -> None:
    """The most frequently applied rule."""
    check_auth(message(by=BOB, version=version), room(version, members=(ALICE, BOB)))


@every_version
@pytest.mark.parametrize("membership", ["leave", "ban", "invite"])
def test_only_members_talk(version: str, membership: str) -> None:
    """An invite alone does not allow a user to write."""
    state = room(version, members={ALICE: "join", BOB: membership})

    assert_refused(message(by=BOB, version=version), state, rule="6")
    assert_refused(message(by=CAROL, version=version), state, rule="6")


@every_version
def test_sending_takes_the_level_of_the_event_type(version: str) -> None:
    """A room can be read-only for most."""
    state = room(
        version,
        members=(ALICE, BOB, CAROL),
        users={BOB: 20},
        levels={"events_default": 30, "events": {"m.room.message": 20}},
    )

    check_auth(message(by=BOB, version=version), state)
    assert_refused(event("m.reaction", by=BOB, version=version), state, rule="8")
    assert_refused(message(by=CAROL, version=version), state, rule="8")


@every_version
def test_state_takes_the_level_of_state_events(version: str) -> None:
    """The name of a room is for moderators to change."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50})

    check_auth(state_event("m.room.name", by=BOB, version=version), state)
    assert_refused(state_event("m.room.name", by=CAROL, version=version), state, rule="8")


@every_version
def test_state_under_a_user_id_is_of_that_user(version: str) -> None:
    """However powerful, no user sets the state that belongs to another."""
    state = room(version, members=(ALICE, BOB), users={BOB: 100})

    check_auth(state_event("m.example", by=BOB, version=version, key=BOB), state)
    assert_refused(state_event("m.example", by=BOB, version=version, key=ALICE), state, rule="9")


@every_version
def test_third_party_invites_take_the_invite_level(version: str) -> None:
    """They are invites, not just any state."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 10}, levels={"invite": 10})
    sent = {
        user: state_event("m.room.third_party_invite", by=user, version=version, key="token")
        for user in (BOB, CAROL)
    }

    check_auth(sent[BOB], state)
    assert_refused(sent[CAROL], state, rule="7.1")


# Redactions


def redaction(*, by: str, of: str, version: str) -> Event:
    fields: dict[str, Any] = {"redacts": of}
    return event("m.room.redaction", by=by, version=version, **fields)


@pytest.mark.parametrize("version", versions(redactions_need_power=True))
def test_old_rooms_refuse_redactions_of_others_events(version: str) -> None:
    """In versions 1 and 2, an unauthorised redaction is rejected."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50})

    check_auth(redaction(by=BOB, of="$x:three.example", version=version), state)
    check_auth(redaction(by=CAROL, of="$x:two.example", version=version), state)
    with pytest.raises(RuleBroken) as broken:
        check_auth(redaction(by=CAROL, of="$x:three.example", version=version), state)

    assert broken.value.rule == "11.3"


@pytest.mark.parametrize("version", versions(redactions_need_power=False))
def test_later_rooms_accept_every_redaction(version: str) -> None:
    """A server decides on its effect when it has received both events."""
    state = room(version, members=(ALICE, CAROL), users={})

    check_auth(redaction(by=CAROL, of="$x", version=version), state)


@every_version
def test_redactions_take_the_level_of_their_event_type(version: str) -> None:
    """A room can keep its members from redacting even their own messages."""
    state = room(
        version, members=(ALICE, CAROL), users={}, levels={"events": {"m.room.redaction": 1}}
    )

    assert_refused(redaction(by=CAROL, of="$x:two.example", version=version), state, rule="8")


@every_version
def test_the_rooms_of_these_tests_are_real_enough(version: str) -> None:
    """A refusal must not pass for the wrong reason that the event is in another room."""
    assert room(version).create.room_id == room_id_of(version)
