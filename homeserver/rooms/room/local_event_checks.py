"""Checks of the events that this server makes, before other servers and clients get them.

An event that other servers would reject must not become part of a room here: they would reject all
events that refer to it as well. The room's writer applies these checks to every local event: of a
user, an upgrade, a changed profile, a deactivated account, or the server itself.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection

from homeserver.protocol.authorization.auth_rules import check_auth, required_signers
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.rule_broken import RuleBroken
from homeserver.protocol.errors import BadJson, Forbidden, InvalidParam
from homeserver.protocol.event_types import (
    JOIN_RULES_KEY,
    MEMBER,
    REDACTION,
    SERVER_ACL_KEY,
    TOMBSTONE,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.server_acl import fault_of_acl, keeps_itself_out
from homeserver.rooms.events.event_draft import EventDraft, MemberDraft
from homeserver.rooms.events.stored_event import StoredEvent


def check_own_event(
    event: Event, state: AuthState, server_name: str, signers: Collection[str] = ()
) -> None:
    """Check an event that this server has signed by the rules that other servers will apply.

    `signers` are servers that will sign it too. Raises `Forbidden` if the state before the event
    does not allow it, or if it needs the signature of yet another server.
    """
    try:
        check_auth(event, state)
    except RuleBroken as broken:
        raise Forbidden(str(broken)) from broken
    lacking = required_signers(event).difference((server_name,), signers)
    if lacking:
        raise Forbidden(f"The event needs the signature of {', '.join(sorted(lacking))}")


def check_draft(draft: EventDraft, room_id: str, server_name: str) -> None:
    """Reject drafts that the rules allow but no client can intend, on all endpoints.

    Raises `Forbidden` for a membership that is changed like other state, for a redaction that is
    state (`Sending.redact` checks the sender of every known redaction), and for an access list that
    denies this server; `InvalidParam` for a membership without a user, and for a room that would
    replace itself; `BadJson` for an invalid access list or join rule. Events of other servers are
    checked by the rules alone: see `homeserver/protocol/authorization/auth_rules.py`.
    """
    if draft.type == MEMBER:
        if not isinstance(draft, MemberDraft):
            raise Forbidden("A membership is not changed in this way")
        if not is_valid_user_id(draft.state_key or ""):
            raise InvalidParam("The state key of a member event is a user id")
    if draft.type == TOMBSTONE and draft.content.get("replacement_room") == room_id:
        # Clients would follow it in a circle.
        raise InvalidParam("A room cannot replace itself")
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
            raise Forbidden(f"The access list would deny your own server, {server_name}")


def check_target(target: StoredEvent, current_acl: int | None) -> None:
    """Do not allow the redaction of the room's access list, whose nid is `current_acl`.

    Its content would be empty, which denies all servers. Raises `Forbidden`.
    """
    if target.event_nid == current_acl:
        raise Forbidden("Redacting the access list would deny all servers: set another one")


def check_redaction(redaction: Event, target: Event, state: AuthState) -> None:
    """Raise `Forbidden` unless the sender wrote the target, or may redact others' events."""
    if redaction.sender == target.sender:
        return
    levels = state.power_levels
    if levels.of(redaction.sender) < levels.redact:
        raise Forbidden("You may not redact the events of others in this room")
