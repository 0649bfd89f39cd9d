"""Stored events as clients get them: encoded once, and the same as if they were not."""

from typing import Any

import msgspec
import pytest

from homeserver.accounts.sessions.requester import DELAYED_SCOPE
from homeserver.rooms.events.event_draft import ClientTransaction
from homeserver.rooms.events.stored_event import StoredEvent
from tests.rooms.inbound.replica import ALICE, BOB, build

DEVICE = (ALICE, "PHONE")
READERS = [DEVICE, (ALICE, "LAPTOP"), (BOB, "PHONE"), None]


def sent(scope: str | None) -> StoredEvent:
    """A message of Alice, sent by a device or a delayed event, or that of another server."""
    event = build("11", "!r:x", "m.room.message", ALICE, {"body": "hello"}, None, [], [], 1, 9)
    by = None if scope is None else ClientTransaction(ALICE, scope, "txn", "path")
    return StoredEvent(event, 7, 7, b"", b"", stored_at=7, transaction=by)


@pytest.mark.parametrize("scope", ["PHONE", DELAYED_SCOPE, None])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("membership", ["join", None])
def test_bytes_for_a_reader_say_what_the_object_says(
    scope: str | None, reader: tuple[str, str] | None, membership: str | None
) -> None:
    """Only the sender gets the transaction id; all others get the same bytes."""
    stored = sent(scope)
    options: dict[str, Any] = {"room_id": False, "device": reader, "membership": membership}

    encoded = msgspec.json.decode(stored.client_json(100, **options))

    assert encoded == stored.client_dict(100, **options)
    assert ("transaction_id" in encoded["unsigned"]) == (scope == "PHONE" and reader == DEVICE)
    assert encoded["unsigned"]["age"] == 91


def test_event_from_the_future_has_no_age() -> None:
    """The clock of its sender is ahead, or this server's was set back."""
    encoded = msgspec.json.decode(sent(None).client_json(1, room_id=True))

    assert encoded["unsigned"] == {"age": 0}
