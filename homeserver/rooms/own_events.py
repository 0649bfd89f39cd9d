"""Checks of the events that this server makes, before anybody gets them.

What other servers would refuse must not become part of a room here: everything that cites it would
be refused there as well. The room's writer applies these to every event of ours, whatever makes it:
a user, an upgrade, a changed profile, a closed account, or the server itself.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection

from homeserver.protocol.auth_rules import check_auth, required_signers
from homeserver.protocol.auth_state import AuthState
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_kinds import MEMBER, REDACTION
from homeserver.protocol.events import Event
from homeserver.protocol.rule_broken import RuleBroken
from homeserver.rooms.drafts import Draft, MemberDraft


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


def check_draft(draft: Draft) -> None:
    """Refuse what the rules of a room would let through, and this server does not send.

    Raises `Forbidden` for a membership that is changed as if it were any other state, and for a
    redaction that is state: who may redact is asked of what is known to be a redaction
    (`Sending.redact`).
    """
    if draft.type == MEMBER and not isinstance(draft, MemberDraft):
        raise Forbidden("A membership is not changed in this way")
    if draft.type == REDACTION and draft.state_key is not None:
        raise Forbidden("A redaction is no state event")
