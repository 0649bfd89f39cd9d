"""Events in the client format, encoded once for all readers."""

from typing import Any

import msgspec
import pytest

from homeserver.protocol.client_events import (
    client_event,
    client_event_parts,
    federation_event,
    stripped_state,
)
from homeserver.protocol.events import Event
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    create,
    event,
    join,
    message,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)


def redaction(version: str, target: str = "$target:one.example") -> Event:
    """A redaction with a reason, with its target where the version requires it."""
    if create(version).version.redacts_in_content:
        content = {"reason": "spam", "redacts": target}
        return event("m.room.redaction", by=ALICE, version=version, content=content)
    return event(
        "m.room.redaction", by=ALICE, version=version, content={"reason": "spam"}, redacts=target
    )


def test_redaction_that_is_state_names_nothing() -> None:
    """It is shown even if it has no effect, and clients would apply it."""
    for version in versions(redacts_in_content=True):
        content = {"reason": "spam", "redacts": "$target"}
        sent = event("m.room.redaction", by=ALICE, version=version, content=content, state_key="k")

        shown = client_event(sent, room_id=False, unsigned={})

        assert shown["content"] == {"reason": "spam"}
        assert "redacts" not in shown
        assert shown["state_key"] == "k"


def decoded(event: Event, unsigned: bytes, *, room_id: bool) -> Any:
    head, tail = client_event_parts(event, room_id=room_id)
    return msgspec.json.decode(b"".join((head, unsigned, tail)))


@every_version
def test_clients_see_a_message_without_the_data_of_servers(version: str) -> None:
    """Hashes, signatures and the event graph are not for them."""
    sent = message(by=ALICE, version=version)

    assert client_event(sent, room_id=True, unsigned={"age": 5}) == {
        "content": {"body": "hello"},
        "event_id": sent.event_id,
        "origin_server_ts": 1_700_000_000_000,
        "room_id": sent.room_id,
        "sender": ALICE,
        "type": "m.room.message",
        "unsigned": {"age": 5},
    }


def test_only_state_has_a_state_key() -> None:
    """Its presence, even empty, is what makes an event state."""
    named = event("m.room.name", by=ALICE, state_key="")

    assert client_event(named, room_id=False, unsigned={})["state_key"] == ""
    assert "state_key" not in client_event(message(by=ALICE), room_id=False, unsigned={})


@every_version
@pytest.mark.parametrize("room_id", [True, False])
def test_the_parts_make_up_the_event(version: str, room_id: bool) -> None:
    """The event encoded once for all readers is equal to the one encoded for each."""
    for sent in (create(version), join(BOB, version=version), redaction(version)):
        whole = client_event(sent, room_id=room_id, unsigned={"age": 5})

        assert decoded(sent, b'{"age":5}', room_id=room_id) == whole


def test_the_head_does_not_depend_on_the_room_id() -> None:
    """One encoding serves sync and every other endpoint."""
    sent = message(by=ALICE)

    assert client_event_parts(sent, room_id=True)[0] == client_event_parts(sent)[0]


@every_version
def test_a_redaction_names_its_target_in_both_places(version: str) -> None:
    """Clients of any age find it."""
    rendered = client_event(redaction(version), room_id=False, unsigned={})

    assert rendered["redacts"] == "$target:one.example"
    assert rendered["content"] == {"reason": "spam", "redacts": "$target:one.example"}


@pytest.mark.parametrize("version", versions(redacts_in_content=False))
def test_rendering_a_redaction_leaves_its_content_as_it_is(version: str) -> None:
    """The stored content is what was signed."""
    sent = redaction(version)

    client_event(sent, room_id=False, unsigned={})

    assert sent.content == {"reason": "spam"}


@pytest.mark.parametrize("event_type", ["m.room.message", "m.room.redaction"])
def test_what_redacts_nothing_names_no_target(event_type: str) -> None:
    """A `redacts` of another type, or one that is not an event id, is ordinary content."""
    content = {"redacts": 5}
    sent = event(event_type, by=ALICE, content=content)
    rendered = client_event(sent, room_id=False, unsigned={})

    assert "redacts" not in rendered
    assert rendered["content"] == content


def test_a_client_may_ask_for_the_federation_format() -> None:
    """It gets the event as servers exchange it."""
    sent = message(by=ALICE)

    assert federation_event(sent, unsigned={}) == sent.pdu
    assert federation_event(sent, unsigned={"age": 1}) == {**sent.pdu, "unsigned": {"age": 1}}


@every_version
def test_stripped_state_describes_a_room(version: str) -> None:
    """Invited users see its name before they decide; the create event is always first."""
    made = create(version)
    name = event("m.room.name", by=ALICE, version=version, content={"name": "Tea"}, state_key="")
    topic = event("m.room.topic", by=ALICE, version=version, state_key="not the room's")
    events = (name, made, topic, join(ALICE, version=version))

    stripped = stripped_state({(each.type, each.state_key or ""): each for each in events})

    assert stripped == [
        {"type": "m.room.create", "state_key": "", "sender": ALICE, "content": made.content},
        {"type": "m.room.name", "state_key": "", "sender": ALICE, "content": {"name": "Tea"}},
    ]
