"""The stored form of events: the exact bytes come back, and nothing else is taken for one."""

import hashlib
import json
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from homeserver.storage.database.database import Connection
from homeserver.storage.rooms import event_json
from homeserver.storage.rooms.event_json import (
    HEAD_BYTES,
    MAX_BYTES,
    VERSION,
    DamagedJson,
    pack_json,
    unpack_json,
)
from tests.support.postgres import DatabaseTestCase

DICTIONARY = "f0f0b766ef02198c"
MESSAGE = json.dumps(
    {
        "auth_events": ["$ZsfWYLr0dc5YOWP4cyn9ihnSwuiUZH_RIyFFS6OA2ow"],
        "content": {"body": "This is what somebody writes to their friends", "msgtype": "m.text"},
        "depth": 17,
        "hashes": {"sha256": "_4wkCrGt-gb4h7ACWKdvyaKZivvLXPTswyepS37W-rk"},
        "origin_server_ts": 1796000000000,
        "prev_events": ["$n9q4mMf8-1H0AilzfDUqZLgsM1AVtgdm63UeEKvibhA"],
        "room_id": "!9bFlIkpYt5HfavHYMD5hzcS7hsPRxCcQPDRMQYnrLx4",
        "sender": "@alice:example.org",
        "signatures": {"example.org": {"ed25519:auto": "Kw_U6abRPVHZrkX4jWz4mWCVRPj7G7N0nj2C"}},
        "type": "m.room.message",
    },
    separators=(",", ":"),
).encode()
# Made by the first version; events in the databases of users look like it.
PACKED = bytes.fromhex(
    "010002070000c50700031135d963b19b8fe228cb44ac64651d654a4b64ce39faa84cc4559dc8d48f"
    "b8345eab18f70b97956935c24872fb0c3d519b846c8611277a4c8d6c269634ef7cf4eafb90f6139f"
    "3bdab15a57bcca7d64734968aa5b78af5c8ea7c312f4426a6f8696afe6e134aad7aba38b65379345"
    "cd79a3a4a011777f5fa74c4c49dfcb6844fdfb3652661715472bdcd8b93c9bfd2875bcd05bdb95f3"
    "172397dd78c7b8770cdddde5dcc7f8db7b75eb5bc7d8d5d8c7d0650c5d8e29fefd5ce0343a1c7f27"
    "a60f9494797fb463d9b27f369a94e029b16d934bcef2d5d10dfcbcbae6d1ef7ea29d49c723263275"
    "41d30a819526724bd70ec9f99d577cfc05"
)


def test_message_becomes_much_smaller() -> None:
    """Half of it is the same in all messages."""
    assert len(pack_json(MESSAGE)) < 0.6 * len(MESSAGE)


def test_stored_events_stay_readable() -> None:
    """Neither the dictionary nor the form may change: there are no other copies of the events."""
    content = event_json._dictionary.as_bytes()

    assert hashlib.sha256(content).hexdigest().startswith(DICTIONARY)
    assert unpack_json(PACKED) == MESSAGE


def test_event_from_before_is_its_own_stored_form() -> None:
    """An upgrade does not rewrite the table."""
    assert unpack_json(MESSAGE) == MESSAGE


def test_what_does_not_become_smaller_is_stored_as_it_is() -> None:
    """Neither a tiny event nor one beyond the limit is compressed."""
    for plain in (b"{}", b'{"a":"' + b"a" * MAX_BYTES + b'"}'):
        assert pack_json(plain) is plain


@given(
    st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())),
    st.integers(0, 200),
)
def test_exact_bytes_come_back(content: dict[str, Any], repeat: int) -> None:
    """An event is signed: no byte may differ."""
    text = json.dumps({**content, "body": "text" * repeat}, ensure_ascii=False)
    stored = text.encode("utf-8", "surrogatepass")

    assert unpack_json(pack_json(stored)) == stored


@given(st.binary(max_size=200))
@example(b"\x00\x00\x01\xf6" + bytes(9) + b"\x01")  # a frame that says it has exabytes
def test_damage_is_an_error_of_its_own(noise: bytes) -> None:
    """What a defective disk returns is no JSON of any event, and fails no other way."""
    for stored in (noise, bytes([VERSION]) + noise, PACKED[: len(noise)] + noise):
        try:
            unpacked = unpack_json(stored)
        except DamagedJson:
            continue
        assert stored.startswith(b"{") or len(unpacked) == int.from_bytes(stored[1:HEAD_BYTES])


@pytest.mark.parametrize("claimed", [1, 100, 2**24 - 1])
def test_no_more_is_decompressed_than_the_stored_form_says(claimed: int) -> None:
    """A few bytes cannot become gigabytes."""
    bomb = zstandard.ZstdCompressor(
        dict_data=event_json._dictionary, compression_params=event_json._parameters
    ).compress(b"{" + b"a" * 200_000_000)

    with pytest.raises(DamagedJson):
        unpack_json(bytes([VERSION]) + claimed.to_bytes(3) + bomb)


def test_form_of_a_later_version_is_refused() -> None:
    """It needs a dictionary that this version does not have."""
    with pytest.raises(DamagedJson, match="unknown form"):
        unpack_json(bytes([VERSION + 1]) + PACKED[1:])


class SizeTests(DatabaseTestCase):
    async def test_database_knows_the_size_of_the_json(self) -> None:
        """By it the search index sees that an event was purged while it was indexed."""

        async def sizes(db: Connection) -> list[int]:
            stored = [b"{}", MESSAGE, pack_json(MESSAGE), pack_json(b"[" + MESSAGE * 200 + b"]")]
            cursor = await db.execute(
                "SELECT event_json_size(json) FROM unnest(%s::bytea[]) AS stored (json)", (stored,)
            )
            return [size for (size,) in await cursor.fetchall()]

        self.assertEqual(
            await self.db.run(sizes), [2, len(MESSAGE), len(MESSAGE), 200 * len(MESSAGE) + 2]
        )
