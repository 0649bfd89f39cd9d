"""Published keys of servers: trusted if signed, and for a limited time."""

from typing import Any

import pytest

from homeserver.protocol.signing.server_keys import (
    MAX_VALIDITY_MS,
    InvalidServerKeys,
    parse_server_keys,
)
from homeserver.protocol.signing.signatures import SigningKey, sign_json

NAME = "one.example"
NOW = 1_700_000_000_000
DAY = 86_400_000
KEY = SigningKey.from_seed("now", b"1" * 32)
OTHER = SigningKey.from_seed("other", b"2" * 32)
OLD = SigningKey.from_seed("old", b"3" * 32)


def answer(*signers: SigningKey, **changes: Any) -> dict[str, Any]:
    """A response with one key and one old key, signed by the former unless `by` is given."""
    response = {
        "server_name": NAME,
        "valid_until_ts": NOW + DAY,
        "verify_keys": {KEY.key_id: {"key": KEY.verify_key}},
        "old_verify_keys": {OLD.key_id: {"key": OLD.verify_key, "expired_ts": NOW - DAY}},
        **changes,
    }
    for key in signers or (KEY,):
        response = sign_json(response, NAME, key)
    return response


def test_keys_are_valid_for_as_long_as_the_response_says() -> None:
    """Current keys until the response expires, old ones until their expiry."""
    current, old = parse_server_keys(answer(), NAME, NOW).keys

    assert (current.key_id, current.is_old) == (KEY.key_id, False)
    assert current.is_valid_at(NOW + DAY)
    assert not current.is_valid_at(NOW + DAY + 1)
    assert (old.key_id, old.is_old) == (OLD.key_id, True)
    assert old.is_valid_at(NOW - DAY)
    assert not old.is_valid_at(NOW - DAY + 1)


def test_no_server_can_make_a_key_last_for_more_than_seven_days() -> None:
    """A thief of a key must not be able to publish it permanently."""
    found = parse_server_keys(answer(valid_until_ts=NOW + 30 * DAY), NAME, NOW)

    assert found.valid_until_ts == NOW + MAX_VALIDITY_MS
    assert not found.keys[0].is_valid_at(NOW + MAX_VALIDITY_MS + 1)


def test_an_old_key_cannot_expire_in_the_future() -> None:
    """An old key is not in use any more."""
    old_keys = {OLD.key_id: {"key": OLD.verify_key, "expired_ts": NOW + 10 * DAY}}

    _, old = parse_server_keys(answer(old_verify_keys=old_keys), NAME, NOW).keys

    assert old.valid_until_ts == NOW


def test_keys_of_unknown_algorithms_are_ignored() -> None:
    """A server with unknown kinds of keys still has a known one."""
    keys = {KEY.key_id: {"key": KEY.verify_key}, "post_quantum:1": {"key": "?"}}

    found = parse_server_keys(answer(verify_keys=keys), NAME, NOW)

    assert [key.key_id for key in found.keys] == [KEY.key_id, OLD.key_id]


def test_every_signature_of_a_current_key_must_be_right() -> None:
    """One good signature does not make up for a forged one."""
    keys = {key.key_id: {"key": key.verify_key} for key in (KEY, OTHER)}
    both = answer(KEY, OTHER, verify_keys=keys)
    assert len(parse_server_keys(both, NAME, NOW).keys) == 3

    both["signatures"][NAME][OTHER.key_id] = both["signatures"][NAME][KEY.key_id]

    with pytest.raises(InvalidServerKeys):
        parse_server_keys(both, NAME, NOW)


@pytest.mark.parametrize(
    "response",
    [
        None,
        [],
        {},
        answer(server_name="two.example"),
        answer(valid_until_ts="tomorrow"),
        answer(valid_until_ts=True),
        answer(valid_until_ts=-1),
        answer(valid_until_ts=2**53),
        answer(verify_keys=[]),
        answer(verify_keys={}),
        answer(verify_keys={KEY.key_id: {"key": "short"}}),
        answer(verify_keys={KEY.key_id: KEY.verify_key}),
        answer(OTHER),
        answer(OLD),
        {**answer(), "valid_until_ts": NOW + 2 * DAY},
        {**answer(), "verify_keys": {KEY.key_id: {"key": OTHER.verify_key}}},
        {**answer(), "old_verify_keys": {}},
        {**answer(), "signatures": {}},
        {**answer(), "signatures": {NAME: {KEY.key_id: "AAAA"}}},
        {**answer(), "signatures": {NAME: {KEY.key_id: 5}}},
    ],
)
def test_what_is_malformed_forged_or_tampered_with_is_refused(response: Any) -> None:
    """An attacker between two servers cannot insert a key."""
    with pytest.raises(InvalidServerKeys):
        parse_server_keys(response, NAME, NOW)
