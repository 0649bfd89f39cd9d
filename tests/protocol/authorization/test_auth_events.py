"""The auth events that an event has, and the signatures that it needs."""

import pytest

from homeserver.protocol.authorization.auth_rules import (
    RuleBroken,
    check_auth_events,
    required_signers,
)
from homeserver.protocol.authorization.rule_broken import rule_number
from homeserver.protocol.events import Event
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    create,
    event,
    invite,
    join,
    member,
    message,
    power_levels,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)


def auth_events_of(version: str) -> list[Event]:
    events = [power_levels(by=ALICE, version=version), join(ALICE, version=version)]
    return [create(version), *events] if create(version).version.create_in_auth_events else events


def assert_auth_events_refused(
    event: Event, auth_events: list[Event], *, rule: str, rejected: tuple[str, ...] = ()
) -> None:
    with pytest.raises(RuleBroken) as broken:
        check_auth_events(event, auth_events, rejected)

    assert broken.value.rule == rule_number(event.version, rule)


@every_version
def test_the_auth_events_of_the_selection_are_accepted(version: str) -> None:
    """Every server selects them by the same algorithm."""
    check_auth_events(message(by=ALICE, version=version), auth_events_of(version))
    check_auth_events(create(version), [])


@every_version
def test_no_two_auth_events_have_the_same_place_in_the_state(version: str) -> None:
    """It must be clear which one authorises the event."""
    doubled = [*auth_events_of(version), power_levels(by=BOB, version=version)]

    assert_auth_events_refused(message(by=ALICE, version=version), doubled, rule="3.1")


@every_version
@pytest.mark.parametrize("surplus", ["m.room.member", "m.room.name", "m.room.message"])
def test_auth_events_that_authorise_nothing_are_refused(version: str, surplus: str) -> None:
    """Neither another user's membership, nor other state, nor a message can authorise an event."""
    key = {"m.room.member": BOB, "m.room.name": "", "m.room.message": None}[surplus]
    listed = [*auth_events_of(version), event(surplus, by=BOB, version=version, state_key=key)]

    assert_auth_events_refused(message(by=ALICE, version=version), listed, rule="3.2")


@every_version
def test_rejected_events_authorise_nothing(version: str) -> None:
    """One bad event must not authorise others."""
    listed = auth_events_of(version)

    assert_auth_events_refused(
        message(by=ALICE, version=version), listed, rule="3.3", rejected=(listed[-1].event_id,)
    )


@every_version
def test_auth_events_are_of_the_same_room(version: str) -> None:
    """Power in one room does not count in another."""
    foreign = event(
        "m.room.power_levels", by=ALICE, version=version, state_key="", room_id="!other:room"
    )
    listed = [each for each in auth_events_of(version) if each.type != "m.room.power_levels"]

    assert_auth_events_refused(message(by=ALICE, version=version), [*listed, foreign], rule="3.5")


@pytest.mark.parametrize("version", versions(create_in_auth_events=True))
def test_the_create_event_is_among_the_auth_events(version: str) -> None:
    """Before version 12 nothing else ties an event to the creation of its room."""
    with pytest.raises(RuleBroken) as broken:
        check_auth_events(message(by=ALICE, version=version), auth_events_of(version)[1:])

    assert broken.value.rule == "2.4"


@pytest.mark.parametrize("version", versions(create_in_auth_events=False))
def test_the_create_event_is_not_among_the_auth_events_of_new_rooms(version: str) -> None:
    """The room id already implies it."""
    listed = [create(version), *auth_events_of(version)]

    assert_auth_events_refused(message(by=ALICE, version=version), listed, rule="3.2")


# Signatures


@every_version
def test_the_senders_server_signs(version: str) -> None:
    """Only a user's own server can send events for the user."""
    assert required_signers(message(by=CAROL, version=version)) == {"two.example"}


@pytest.mark.parametrize("version", versions(event_id_domain_must_sign=True))
def test_the_server_of_an_old_event_id_signs_too(version: str) -> None:
    """In versions 1 and 2 a server chooses the id, and must sign it."""
    sent = message(by=CAROL, version=version)
    renamed = Event(sent.version, sent.pdu, b"", "$id:three.example")

    assert required_signers(renamed) == {"two.example", "three.example"}


@pytest.mark.parametrize("version", versions(restricted_joins=True))
def test_the_server_that_authorises_a_restricted_join_signs_too(version: str) -> None:
    """Rule 5.2: no server can name an authorising member unless that user's server signs."""
    joined = join(CAROL, version=version, join_authorised_via_users_server=ALICE)

    assert required_signers(joined) == {"one.example", "two.example"}


@pytest.mark.parametrize("version", versions(restricted_joins=False))
def test_the_authorising_server_means_nothing_before_version_8(version: str) -> None:
    """Old rooms know no such field."""
    joined = join(CAROL, version=version, join_authorised_via_users_server=ALICE)

    assert required_signers(joined) == {"two.example"}


@pytest.mark.parametrize("version", versions(event_id_domain_must_sign=False))
def test_any_server_may_redeem_a_third_party_invite(version: str) -> None:
    """The inviter's server may be unavailable when the invited user shows the proof."""
    redeemed = invite(by=ALICE, of=CAROL, version=version, third_party_invite={})

    assert required_signers(redeemed) == set()
    assert required_signers(member(CAROL, "join", version=version, third_party_invite={})) == {
        "two.example"
    }
