"""Invites of an address, redeemed by a user who proves that it is theirs."""

from typing import Any

import pytest

from homeserver.protocol.authorization.auth_rules import AuthState, check_auth
from homeserver.protocol.events import Event
from homeserver.protocol.signing.signatures import SigningKey, sign_json
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    DAVE,
    assert_refused,
    event,
    invite,
    room,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
KEY = SigningKey.from_seed("0", b"\x01" * 32)
OTHER_KEY = SigningKey.from_seed("0", b"\xfb" * 32)
TOKEN = "abc123"


def signed(*, key: SigningKey = KEY, **changed: Any) -> dict[str, Any]:
    """The object that the identity server signs for CAROL; `None` removes a member."""
    value = {"mxid": CAROL, "token": TOKEN} | changed
    return sign_json(
        {name: member for name, member in value.items() if member is not None}, "id.example", key
    )


def redeemed(version: str, proof: Any, *, by: str = ALICE) -> Event:
    return invite(by=by, of=CAROL, version=version, third_party_invite=proof)


def invited(version: str, *, membership: str = "leave", **content: Any) -> AuthState:
    """A room in which ALICE has invited an address, with KEY unless `content` says otherwise."""
    content = content or {"public_key": KEY.verify_key}
    third_party = event(
        "m.room.third_party_invite", by=ALICE, version=version, content=content, state_key=TOKEN
    )
    members = {ALICE: "join", BOB: "join", CAROL: membership}
    return room(version, members=members, others=[third_party])


@every_version
def test_the_owner_of_the_address_is_invited(version: str) -> None:
    """A user invited by e-mail joins with the account of their choice."""
    check_auth(redeemed(version, {"signed": signed()}), invited(version))


@every_version
@pytest.mark.parametrize("url_safe", [False, True])
def test_any_of_the_public_keys_suffices(version: str, url_safe: bool) -> None:
    """Keys are listed too, in either alphabet of Base64."""
    name = OTHER_KEY.verify_key
    key = name.replace("+", "-").replace("/", "_") if url_safe else name
    entries = ["nonsense", {}, {"public_key": 5}, {"public_key": "?"}, {"public_key": key}]
    state = invited(version, public_key=KEY.verify_key, public_keys=entries)

    check_auth(redeemed(version, {"signed": signed(key=OTHER_KEY)}), state)


@every_version
def test_an_invite_remains_valid_when_the_inviter_has_left(version: str) -> None:
    """Rule 5.4.1 does not ask for the sender's membership."""
    state = invited(version)
    gone = room(
        version,
        members={ALICE: "leave"},
        others=[each for each in [state.get("m.room.third_party_invite", TOKEN)] if each],
    )

    check_auth(redeemed(version, {"signed": signed()}), gone)


@every_version
def test_the_banned_are_not_invited_by_their_address(version: str) -> None:
    """Another name is no way around a ban."""
    state = invited(version, membership="ban")

    assert_refused(redeemed(version, {"signed": signed()}), state, rule="5.4.1.1")


@every_version
@pytest.mark.parametrize("proof", [None, {}, [], "signed", {"signed": None}, {"signed": []}])
def test_a_proof_is_signed(version: str, proof: object) -> None:
    """Without the identity server's signature there is no proof."""
    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.2")


@every_version
@pytest.mark.parametrize("missing", ["mxid", "token"])
def test_a_proof_names_the_user_and_the_token(version: str, missing: str) -> None:
    """A signature of anything else proves nothing."""
    changed: dict[str, Any] = {missing: None}
    proof = {"signed": signed(**changed)}

    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.3")


@every_version
def test_a_proof_is_for_one_user(version: str) -> None:
    """A user who intercepted it cannot use it."""
    proof = {"signed": signed(mxid=DAVE)}

    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.4")


@every_version
@pytest.mark.parametrize("token", ["other", 5, ["abc123"]])
def test_a_proof_is_for_an_invite_of_the_room(version: str, token: object) -> None:
    """The invite must exist, and not have been rescinded."""
    proof = {"signed": signed(token=token)}

    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.5")


@every_version
def test_an_invite_is_redeemed_in_the_name_of_its_sender(version: str) -> None:
    """The invited user sees who really invited them."""
    proof = {"signed": signed()}

    assert_refused(redeemed(version, proof, by=BOB), invited(version), rule="5.4.1.6")


@every_version
@pytest.mark.parametrize("signatures", [None, {}, [], {"id.example": 5}, {"id.example": {}}])
def test_a_proof_has_a_signature(version: str, signatures: object) -> None:
    """A missing or malformed one is refused without an exception."""
    proof = {"signed": {**signed(), "signatures": signatures}}

    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.8")


@every_version
def test_a_proof_is_signed_by_a_key_of_the_invite(version: str) -> None:
    """Anyone can sign an object with their own key."""
    proof = {"signed": signed(key=OTHER_KEY)}

    assert_refused(redeemed(version, proof), invited(version), rule="5.4.1.8")
