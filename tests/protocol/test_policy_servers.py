"""Policy servers: which one a room has, and valid recommendations."""

from typing import Any

import pytest

from homeserver.protocol.policy_servers import KEY_ID, is_exempt, parse_policy
from homeserver.protocol.signing.signatures import SigningKey
from tests.support.room_graph import RoomGraph

KEY = SigningKey.from_seed("policy_server", b"p" * 32)
OTHER = SigningKey.from_seed("policy_server", b"o" * 32)
NAME = "policy.example.org"
POLICY = {"via": NAME, "public_keys": {"ed25519": KEY.verify_key}}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"via": NAME},
        {"public_keys": POLICY["public_keys"]},
        {**POLICY, "via": ["x"]},
        {**POLICY, "via": "no name"},
        {**POLICY, "public_keys": {"ed448": "x"}},
        {**POLICY, "public_keys": {"ed25519": 5}},
        {**POLICY, "public_keys": [KEY.verify_key]},
    ],
)
def test_a_policy_without_server_or_key_names_none(content: dict[str, Any]) -> None:
    """An error in the state does not close the room."""
    assert parse_policy(content) is None


@pytest.mark.parametrize("version", ["1", "3", "12"])
def test_an_event_is_recommended_by_the_key_of_the_room(version: str) -> None:
    """Neither another key nor another server counts, and a changed event is not recommended."""
    policy = parse_policy(POLICY)
    assert policy is not None
    graph = RoomGraph.create(version, "@a:one.example", "one.example", OTHER)
    event = graph.say("@a:one.example", "hello")
    signature = KEY.sign(event.signing_bytes())
    other = graph.say("@a:one.example", "hello again")

    assert policy.recommends(event.with_signature(NAME, KEY_ID, signature))
    assert not policy.recommends(event)
    assert not policy.recommends(event.with_signature("x.example", KEY_ID, signature))
    assert not policy.recommends(event.with_signature(NAME, "ed25519:1", signature))
    assert not policy.recommends(other.with_signature(NAME, KEY_ID, signature))
    forged = OTHER.sign(event.signing_bytes())
    assert not policy.recommends(event.with_signature(NAME, KEY_ID, forged))


def test_both_alphabets_of_keys_are_read() -> None:
    """The specification uses one in its example, and the other in its text."""
    keys = {"ed25519": KEY.verify_key.replace("+", "-").replace("/", "_")}

    assert parse_policy({**POLICY, "public_keys": keys}) == parse_policy(POLICY)


def test_a_key_that_is_none_recommends_nothing() -> None:
    """The room has a policy server all the same; a moderator must correct the state."""
    policy = parse_policy({**POLICY, "public_keys": {"ed25519": "nonsense!"}})
    graph = RoomGraph.create("12", "@a:one.example", "one.example", OTHER)
    event = graph.say("@a:one.example", "hello")

    assert policy is not None
    signed = event.with_signature(NAME, KEY_ID, KEY.sign(event.signing_bytes()))
    assert not policy.recommends(signed)


def test_only_the_policy_itself_is_exempt() -> None:
    """A room can remove a policy server, but not evade it otherwise."""
    assert is_exempt("m.room.policy", "")
    assert not is_exempt("m.room.policy", None)
    assert not is_exempt("m.room.policy", "x")
    assert not is_exempt("m.room.member", "")
