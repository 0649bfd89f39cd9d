"""Checks of the events that this server makes, before anybody gets them.

What other servers would refuse must not become part of a room here: everything that cites it would
be refused there as well. The room's writer applies these to every event of ours, whatever makes it:
a user, an upgrade, a changed profile, a closed account, or the server itself.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection

from homeserver.protocol.authorization.auth_rules import check_auth, required_signers
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.rule_broken import RuleBroken
from homeserver.protocol.errors import BadJson, Forbidden, InvalidParam
from homeserver.protocol.event_types import JOIN_RULES_KEY, MEMBER, REDACTION, SERVER_ACL_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.server_acl import fault_of_acl, keeps_itself_out
from homeserver.rooms.events.event_draft import EventDraft, MemberDraft
from homeserver.rooms.events.stored_event import StoredEvent


def check_own_event(
    event: Event, state: AuthState, server_name: str, signers: Collection[str] = ()
) -> None:
    """Check an event that this server has signed by the rules that other servers will apply.

    `signers` are servers that will sign it too. Raises `Forbidden` where the state before the event
    does not allow it, or where it needs the signature of yet another server.
    """
    try:
        check_auth(event, state)
    except RuleBroken as broken:
        raise Forbidden(str(broken)) from broken
    lacking = required_signers(event).difference((server_name,), signers)
    if lacking:
        raise Forbidden(f"The event needs the signature of {', '.join(sorted(lacking))}")


def check_draft(draft: EventDraft, server_name: str) -> None:
    """Refuse what the rules let through and no client can mean, whatever endpoint it comes by.

    Raises `Forbidden` for a membership that is changed as if it were any other state, for a
    redaction that is state (who may redact is asked of what is known to be a redaction, by
    `Sending.redact`), and for an access list that keeps this server out; `InvalidParam` where
    nobody's membership is to change; `BadJson` for an access list or a join rule that is none.
    Other servers' events are judged by the rules alone: see
    `homeserver/protocol/authorization/auth_rules.py`.
    """
    if draft.type == MEMBER:
        if not isinstance(draft, MemberDraft):
            raise Forbidden("A membership is not changed in this way")
        if not is_valid_user_id(draft.state_key or ""):
            raise InvalidParam("The state key of a member event is a user id")
    if draft.state_key is None:
        return
    if draft.type == REDACTION:
        raise Forbidden("A redaction is no state event")
    key = draft.type, draft.state_key
    if key == JOIN_RULES_KEY and not isinstance(draft.content.get("join_rule", "invite"), str):
        raise BadJson("join_rule is a string")
    if key == SERVER_ACL_KEY:
        if (fault := fault_of_acl(draft.content)) is not None:
            raise BadJson(f"The access list cannot be used: {fault}")
        if keeps_itself_out(server_name, draft.content):
            raise Forbidden(f"The access list would keep your own server, {server_name}, out")


def check_target(target: StoredEvent, current_acl: int | None) -> None:
    """Refuse to redact the room's access list, whose number is `current_acl`.

    Nothing would be left of it, which lets no server take part. Raises `Forbidden`.
    """
    if target.event_nid == current_acl:
        raise Forbidden("Redacting the access list would keep all servers out: set another one")
