"""Authorisation of invites that redeem a third-party invite.

A member invites an e-mail address or telephone number, of which the room learns only a token and
public keys. Whoever proves to the identity server that the address is theirs gets a signed object
that names their user id and the token; with it, the invite is turned into one of a user.

Rule numbers are those of room version 12, in whose order the code stands.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-invites
"""

from collections.abc import Iterator, Mapping
from typing import Any

from homeserver.protocol.auth_state import AuthState
from homeserver.protocol.events import Event
from homeserver.protocol.rule_broken import rule_broken
from homeserver.protocol.signatures import BadSignature, signature_key_ids, verify_signed_json

_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")


def check_third_party_invite(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.4.1: the invite of `target` shows that they hold the address that was invited.

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
    invite = state.get("m.room.third_party_invite", token) if isinstance(token, str) else None
    if invite is None:
        raise rule_broken(version, "5.4.1.5", "no such third-party invite, or it was withdrawn")

    if sender != invite.sender:
        raise rule_broken(version, "5.4.1.6", f"{sender} did not make the third-party invite")

    # 5.4.1.7
    if _is_signed_by_any(signed, list(_public_keys(invite.content))):
        return

    raise rule_broken(version, "5.4.1.8", "no public key of the invite fits a signature")


def _public_keys(content: Mapping[str, Any]) -> Iterator[str]:
    """Rules 5.4.1.7.1 and 5.4.1.7.2; keys may be written in either alphabet of Base64."""
    keys = content.get("public_keys")
    entries = [content, *(keys if isinstance(keys, list) else [])]
    for entry in entries:
        key = entry.get("public_key") if isinstance(entry, Mapping) else None
        if isinstance(key, str):
            yield key.translate(_TO_STANDARD_BASE64)


def _is_signed_by_any(signed: Mapping[str, Any], public_keys: list[str]) -> bool:
    signatures = signed.get("signatures")
    servers = signatures if isinstance(signatures, Mapping) else {}
    return any(
        _is_signed_by(signed, server, key_id, public_key)
        for server in servers
        for key_id in signature_key_ids(signed, server)
        for public_key in public_keys
    )


def _is_signed_by(signed: Mapping[str, Any], server: str, key_id: str, public_key: str) -> bool:
    try:
        verify_signed_json(signed, server, key_id, public_key)
    except BadSignature:
        return False
    return True
