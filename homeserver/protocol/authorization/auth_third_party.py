"""Authorisation of invites that redeem a third-party invite.

A member invites an e-mail address or telephone number; the room state has only a token and public
keys for it. A user who proves to the identity server that the address is theirs gets a signed
object with their user id and the token; with it, the invite is turned into one of a user.

Rule numbers are those of room version 12, which also set the order of the code.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.rule_broken import rule_broken
from homeserver.protocol.event_types import THIRD_PARTY_INVITE
from homeserver.protocol.events import Event
from homeserver.protocol.signing.signatures import (
    BadSignature,
    signature_key_ids,
    verify_signed_json,
)

_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")


def check_third_party_invite(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.4.1: the invite of `target` proves that the invited address is theirs.

    Raises `RuleBroken`.
    """
    version, sender = event.version, event.sender

    if state.membership(target) == "ban":
        raise rule_broken(version, "5.4.1.1", f"{target} is banned")

    proof = event.content["third_party_invite"]
    signed = proof.get("signed") if isinstance(proof, Mapping) else None
    if not isinstance(signed, Mapping):
        raise rule_broken(version, "5.4.1.2", "the third-party invite is not signed")

    if "mxid" not in signed or "token" not in signed:
        raise rule_broken(version, "5.4.1.3", "the signed object has no mxid or no token")

    if signed["mxid"] != target:
        raise rule_broken(version, "5.4.1.4", f"the signed object is not for {target}")

    token = signed["token"]
    invite = state.get(THIRD_PARTY_INVITE, token) if isinstance(token, str) else None
    if invite is None:
        raise rule_broken(version, "5.4.1.5", "no such third-party invite, or it was withdrawn")

    if sender != invite.sender:
        raise rule_broken(version, "5.4.1.6", f"{sender} did not make the third-party invite")

    # 5.4.1.7
    if signing_key(signed, invite.content) is not None:
        return

    raise rule_broken(version, "5.4.1.8", "no public key of the invite fits a signature")


class InviteKey(msgspec.Struct, frozen=True):
    """A public key of an invite, in its original form, and the URL to check its validity."""

    public_key: str
    validity_url: str | None


def signing_key(signed: Mapping[str, Any], content: Mapping[str, Any]) -> InviteKey | None:
    """The key of a third-party invite with which an object is signed.

    `None` if there is none. Rules 5.4.1.7.1 and 5.4.1.7.2.
    """
    signatures = signed.get("signatures")
    servers = signatures if isinstance(signatures, Mapping) else {}
    for key in _public_keys(content):
        for server in servers:
            for key_id in signature_key_ids(signed, server):
                if _is_signed_by(signed, server, key_id, key.public_key):
                    return key
    return None


def _public_keys(content: Mapping[str, Any]) -> Iterator[InviteKey]:
    keys = content.get("public_keys")
    entries = [content, *(keys if isinstance(keys, list) else [])]
    for entry in entries:
        key = entry.get("public_key") if isinstance(entry, Mapping) else None
        if isinstance(key, str):
            url = entry.get("key_validity_url")
            yield InviteKey(key, url if isinstance(url, str) else None)


def _is_signed_by(signed: Mapping[str, Any], server: str, key_id: str, public_key: str) -> bool:
    try:
        # Keys may be in either alphabet of Base64.
        standard = public_key.translate(_TO_STANDARD_BASE64)
        verify_signed_json(signed, server, key_id, standard)
    except BadSignature:
        return False
    return True
