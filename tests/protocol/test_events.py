"""Events: built, received, stored and redacted, with the same value each time."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from homeserver.protocol.client_events import client_event_parts
from homeserver.protocol.events import Event, EventTooLarge, InvalidEvent, build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.hashes import check_content_hash, event_id_of
from homeserver.protocol.signing.signatures import SigningKey, verify_event_signature
from tests.protocol.json_values import canonical_objects, versions, versions_and_pdus

KEY = SigningKey.from_seed("1", b"\x01" * 32)
V1, V10, V11, V12 = (ROOM_VERSIONS[identifier] for identifier in ("1", "10", "11", "12"))


def event(version=V12, **fields: Any) -> Event:
    """A local event, a message unless the fields say otherwise."""
    return build_event(
        version,
        **{
            "room_id": "!x:domain",
            "type": "m.room.message",
            "sender": "@a:domain",
            "content": {"body": "hello"},
            "prev_events": (),
            "auth_events": (),
            "depth": 1,
            "origin_server_ts": 1_700_000_000_000,
            "server_name": "domain",
            "key": KEY,
            **fields,
        },
    )


@given(versions, canonical_objects)
def test_local_events_are_valid_on_other_servers(version, content):
    """Another server checks format, hash, signature and id, and must get the stored event."""
    first = event(version, type="m.room.create", state_key="", content=content)

    second = event(version, content=content, prev_events=[first], auth_events=[first])

    received = Event.from_pdu(version, msgspec.json.decode(second.json))
    assert received == second
    assert received.event_id == second.event_id
    assert received.prev_event_ids == received.auth_event_ids == [first.event_id]
    assert check_content_hash(version, received.pdu)
    verify_event_signature(version, received.pdu, "domain", KEY.key_id, KEY.verify_key)


@given(versions_and_pdus())
def test_a_received_event_is_kept_without_unsigned(case):
    """Data that the sender did not sign is not stored."""
    version, pdu = case

    received = Event.from_pdu(version, pdu)

    del pdu["unsigned"]
    assert received.pdu == pdu
    assert msgspec.json.decode(received.json) == pdu
    assert received.event_id == event_id_of(version, pdu)


@given(versions_and_pdus())
def test_a_stored_event_is_read_as_it_was(case):
    """With the id that was stored separately, or without."""
    version, pdu = case
    received = Event.from_pdu(version, pdu)

    with_id = Event.from_json(version, received.json, received.event_id)
    without_id = Event.from_json(version, received.json)

    assert with_id == without_id == received
    assert with_id.pdu == received.pdu
    assert hash(with_id) == hash(received)


FIELDS = (
    "type", "sender", "state_key", "content", "depth", "origin_server_ts", "room_id", "pdu",
    "prev_event_ids", "auth_event_ids", "redacts", "reference", "is_state",
)  # fmt: skip


def rendered(each: Event) -> Any:
    """The event as clients get it; the order of fields means nothing."""
    return msgspec.json.decode(b"{}".join(client_event_parts(each, room_id=True)))


@given(versions_and_pdus())
def test_an_event_says_the_same_however_much_of_it_is_decoded(case):
    """What is in memory of an event depends on who has read it."""
    version, pdu = case
    received = Event.from_pdu(version, pdu)
    parts = rendered(received)
    fields = [getattr(received, name) for name in FIELDS]
    stored = Event.from_json(version, received.json, received.event_id)

    assert rendered(stored) == parts
    assert [getattr(stored, name) for name in FIELDS] == fields
    for each in (received, stored):
        each.forget_decoded()
        assert rendered(each) == parts
        assert [getattr(each, name) for name in FIELDS] == fields
        assert each == received
        assert each.redacted() == received.redacted()


def test_the_content_of_an_event_is_decoded_once():
    """Rules read it several times."""
    stored = Event.from_json(V12, event().json, "$id")

    first = stored.content

    assert stored.content is first
    stored.forget_decoded()
    assert stored.content == first


def test_the_fields_of_an_event_are_attributes():
    """The names that all other code uses."""
    state = event(type="m.room.topic", state_key="", content={"topic": "t"}, depth=7)

    assert (state.type, state.state_key, state.sender) == ("m.room.topic", "", "@a:domain")
    assert (state.depth, state.origin_server_ts) == (7, 1_700_000_000_000)
    assert (state.room_id, state.content) == ("!x:domain", {"topic": "t"})
    assert state.sender_server == "domain"
    assert list(state.signatures) == ["domain"]
    assert list(state.hashes) == ["sha256"]
    assert state.is_state
    assert state != "another kind of thing"
    assert state.event_id in repr(state)


def test_an_event_without_state_key_is_no_state():
    """An empty state key makes it state; a missing one does not."""
    assert event().state_key is None
    assert not event().is_state


def test_the_create_event_names_its_room_since_version_12():
    """The room id is the id of the event with another sigil."""
    create = event(V12, room_id=None, type="m.room.create", state_key="", content={})

    assert "room_id" not in create.pdu
    assert create.room_id == "!" + create.event_id[1:]
    assert Event.from_pdu(V12, create.pdu).room_id == create.room_id


@given(versions_and_pdus())
def test_redacting_keeps_id_and_signatures(case):
    """The redacted event takes the place of the other one everywhere."""
    version, pdu = case
    received = Event.from_pdu(version, pdu)

    redacted = received.redacted()

    assert redacted.event_id == received.event_id == event_id_of(version, redacted.pdu)
    assert redacted.signatures == received.signatures
    assert redacted.signing_bytes() == received.signing_bytes()


def test_a_second_signature_joins_the_first():
    """The server of an invited user signs the invite and sends it back."""
    local = event()

    both = local.with_signature("other", KEY.key_id, KEY.sign(local.signing_bytes()))

    assert list(local.signatures) == ["domain"]
    assert both.event_id == local.event_id
    for server_name in ("domain", "other"):
        verify_event_signature(V12, both.pdu, server_name, KEY.key_id, KEY.verify_key)


@pytest.mark.parametrize("version", ROOM_VERSIONS.values())
def test_a_redaction_names_its_target_where_the_version_wants_it(version):
    """Other servers ignore a target in the wrong place."""
    redaction = event(
        version, type="m.room.redaction", content={"reason": "r"}, redacts="$t:domain"
    )

    assert redaction.redacts == "$t:domain"
    assert ("redacts" in redaction.content) is version.redacts_in_content
    assert ("redacts" in redaction.pdu) is not version.redacts_in_content


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (V10, {"type": "m.room.message", "redacts": "$t"}),
        (V10, {"type": "m.room.redaction", "content": {"redacts": "$t"}}),
        (V11, {"type": "m.room.redaction", "content": {}}),
        (V11, {"type": "m.room.redaction", "content": {"redacts": 1}}),
    ],
)
def test_an_event_that_names_no_target_redacts_nothing(version, fields):
    """Only a redaction redacts, and only a target in the right place."""
    assert event(version, **fields).redacts is None


def test_chosen_event_ids_differ_when_events_do():
    """In the oldest rooms the server chooses the id, which must be unique."""
    first, again, other = event(V1), event(V1), event(V1, depth=2)

    assert first.event_id == again.event_id
    assert first.event_id != other.event_id
    assert first.event_id.endswith(":domain")
    assert first.pdu["event_id"] == first.event_id


def test_references_of_the_oldest_rooms_carry_the_hash():
    """These prove which version of its prev events the sender has seen."""
    parent = event(V1)

    child = event(V1, prev_events=[parent])

    [[event_id, hashes]] = child.pdu["prev_events"]
    assert event_id == parent.event_id
    assert list(hashes) == ["sha256"]
    assert child.prev_event_ids == [parent.event_id]


def test_references_may_be_event_ids_of_missing_events():
    """The template of a join over federation refers to events of another server."""
    child = event(V12, prev_events=["$" + "p" * 43], auth_events=["$" + "a" * 43])

    assert child.prev_event_ids == ["$" + "p" * 43]
    assert child.auth_event_ids == ["$" + "a" * 43]


def test_depth_stays_at_the_limit():
    """A room with the maximum depth, set by another server, stays usable."""
    assert event(V12, depth=2**53).depth == 2**53 - 1
    assert event(V1, depth=2**63).depth == 2**63 - 1


@pytest.mark.parametrize("content", [{"a": 1.5}, {"a": 2**53}, {"a": "\ud800"}])
def test_new_rooms_take_no_content_that_is_not_canonical(content):
    """Other servers would drop the event."""
    with pytest.raises(InvalidEvent):
        event(V12, content=content)

    pdu = {**event(V12).pdu, "content": content}
    with pytest.raises(InvalidEvent):
        Event.from_pdu(V12, pdu)


def test_old_rooms_take_floats():
    """Power levels were floats once, and such rooms still exist."""
    sent = event(V1, content={"a": 1.5, "b": 2**60})

    assert b'"a":1.5,"b":1152921504606846976' in sent.json
    assert Event.from_pdu(V1, sent.pdu) == sent


def test_an_event_is_limited_to_65536_bytes_with_its_signatures():
    """A larger event would be dropped by every other server in the room."""
    room_left = 65_536 - len(event(content={"body": ""}).json)

    largest = event(content={"body": "x" * room_left})

    assert len(largest.json) == 65_536
    assert Event.from_pdu(V12, largest.pdu) == largest
    with pytest.raises(EventTooLarge):
        event(content={"body": "x" * (room_left + 1)})
    with pytest.raises(EventTooLarge):
        Event.from_pdu(V12, {**largest.pdu, "content": {"body": "x" * (room_left + 1)}})


@pytest.mark.parametrize("version", ROOM_VERSIONS.values())
@pytest.mark.parametrize("field", ["type", "state_key", "sender", "room_id"])
def test_short_fields_of_local_events_are_limited_too(version, field):
    """A client may send a type of any length; every server must accept the resulting event."""
    for name in ("x" * 256, "é" * 128):
        with pytest.raises(EventTooLarge):
            event(version=version, **{field: name})
