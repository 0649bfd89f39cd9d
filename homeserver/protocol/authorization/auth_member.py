"""Authorisation of `m.room.member` events: who may join, invite, leave, kick, ban and knock.

One function per membership. Each takes an event and the state to check it against, and either
returns or raises `RuleBroken`. Rule numbers are those of room version 12, which also set the order
of the code; rules that older versions lack depend on a column of the room version.

The signature that rule 5.2 requires of the server that authorises a restricted join is checked with
the other signatures of the event: see `auth_rules.required_signers`.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.auth_third_party import check_third_party_invite
from homeserver.protocol.authorization.auth_types import (
    AUTHORISING_USER,
    authorising_user,
    is_user_id,
)
from homeserver.protocol.authorization.rule_broken import rule_broken
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import creator_of
from homeserver.protocol.room_versions import RoomVersion


def check_member(event: Event, state: AuthState) -> None:
    """Rule 5: a change of a membership. Raises `RuleBroken`."""
    version, target = event.version, event.state_key
    membership = event.content.get("membership")

    if target is None or "membership" not in event.content:
        raise rule_broken(version, "5.1", "a membership event needs a state key and a membership")

    # No room version says that the state key is a user id. But other servers reject a key without a
    # domain in all versions, and accept all other keys; rooms would split if this server did not do
    # the same.
    if ":" not in target:
        raise rule_broken(version, "5.1", f"{target!r} has no server")

    # 5.2.1: a value that is not a user id has no homeserver that could have signed.
    names_user = version.restricted_joins and AUTHORISING_USER in event.content
    if names_user and not is_user_id(event.content[AUTHORISING_USER]):
        raise rule_broken(version, "5.2.1", "a restricted join must be authorised by a user")

    if membership == "join":
        check_join(event, target, state)
    elif membership == "invite":
        check_invite(event, target, state)
    elif membership == "leave":
        check_leave(event, target, state)
    elif membership == "ban":
        check_ban(event, target, state)
    elif membership == "knock" and version.knocking:
        check_knock(event, target, state)
    else:
        raise rule_broken(version, "5.8", f"unknown membership {membership!r}")


def check_join(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.3: a user joins."""
    version, join_rule, create = event.version, state.join_rule, state.create

    # 5.3.1: the creator needs no invitation to the room that holds nothing but its creation.
    if event.prev_event_ids == [create.event_id] and target == creator_of(create):
        return

    if event.sender != target:
        raise rule_broken(version, "5.3.2", f"{event.sender} cannot join for {target}")

    membership = state.membership(target)
    if membership == "ban":
        raise rule_broken(version, "5.3.3", f"{target} is banned")

    if join_rule in _invite_rules(version) and membership in ("invite", "join"):
        return

    if join_rule in _restricted_rules(version):
        _check_restricted_join(event, membership, state)
        return

    # 5.3.6
    if join_rule == "public":
        return

    raise rule_broken(version, "5.3.7", f"{target} may not join: the join rule is {join_rule!r}")


def check_invite(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.4: the sender invites the user named by the state key."""
    version, sender = event.version, event.sender

    if "third_party_invite" in event.content:
        check_third_party_invite(event, target, state)
        return

    if state.membership(sender) != "join":
        raise rule_broken(version, "5.4.2", f"{sender} is not in the room")

    if state.membership(target) in ("join", "ban"):
        raise rule_broken(version, "5.4.3", f"{target} is in the room or banned")

    # 5.4.4
    if state.power_levels.of(sender) >= state.power_levels.invite:
        return

    raise rule_broken(version, "5.4.5", f"{sender} may not invite")


def check_leave(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.5: a user leaves, declines or rescinds; or the sender kicks or unbans them."""
    version, sender, levels = event.version, event.sender, state.power_levels

    if sender == target:
        if state.membership(target) in _memberships_to_leave(version):
            return
        raise rule_broken(version, "5.5.1", f"{sender} has nothing to leave")

    if state.membership(sender) != "join":
        raise rule_broken(version, "5.5.2", f"{sender} is not in the room")

    if state.membership(target) == "ban" and levels.of(sender) < levels.ban:
        raise rule_broken(version, "5.5.3", f"{sender} may not unban {target}")

    # 5.5.4
    if levels.of(sender) >= levels.kick and levels.of(target) < levels.of(sender):
        return

    raise rule_broken(version, "5.5.5", f"{sender} may not kick {target}")


def check_ban(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.6: the sender bans the user named by the state key."""
    version, sender, levels = event.version, event.sender, state.power_levels

    if state.membership(sender) != "join":
        raise rule_broken(version, "5.6.1", f"{sender} is not in the room")

    # 5.6.2: an equal cannot be banned, so two moderators cannot evict each other.
    if levels.of(sender) >= levels.ban and levels.of(target) < levels.of(sender):
        return

    raise rule_broken(version, "5.6.3", f"{sender} may not ban {target}")


def check_knock(event: Event, target: str, state: AuthState) -> None:
    """Rule 5.7: a user knocks."""
    version, sender = event.version, event.sender

    if state.join_rule not in _knock_rules(version):
        raise rule_broken(version, "5.7.1", f"the join rule is {state.join_rule!r}")

    if sender != target:
        raise rule_broken(version, "5.7.2", f"{sender} cannot knock for {target}")

    # 5.7.3
    if state.membership(sender) not in ("ban", "invite", "join"):
        return

    raise rule_broken(version, "5.7.4", f"{sender} is banned, invited or already in the room")


def _check_restricted_join(event: Event, membership: str, state: AuthState) -> None:
    """Rule 5.3.5: a restricted join, authorised by a member who could have invited the user."""
    if membership in ("join", "invite"):
        return

    inviter = authorising_user(event.version, event.content)
    if (
        inviter is None
        or state.membership(inviter) != "join"
        or state.power_levels.of(inviter) < state.power_levels.invite
    ):
        raise rule_broken(event.version, "5.3.5.2", f"{inviter} cannot authorise this join")


def _invite_rules(version: RoomVersion) -> tuple[str, ...]:
    return ("invite", "knock") if version.knocking else ("invite",)


def _restricted_rules(version: RoomVersion) -> tuple[str, ...]:
    if not version.restricted_joins:
        return ()
    return ("restricted", "knock_restricted") if version.knock_restricted else ("restricted",)


def _knock_rules(version: RoomVersion) -> tuple[str, ...]:
    return ("knock", "knock_restricted") if version.knock_restricted else ("knock",)


def _memberships_to_leave(version: RoomVersion) -> tuple[str, ...]:
    return ("invite", "join", "knock") if version.knocking else ("invite", "join")
