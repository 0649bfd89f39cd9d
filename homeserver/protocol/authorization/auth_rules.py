"""The authorisation rules: which events a room accepts.

`check_auth` checks an event against a state of the room: that before it, that of its auth events,
or the current one. `check_auth_events` checks the list of auth events. The rules of all room
versions are here and in the other `auth_*` modules; versions differ by columns of
`room_versions.py` only. Rule numbers in the code are those of room version 12 unless a docstring
says otherwise; `RuleBroken.rule` is always the number in the specification of the event's own
version.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from collections.abc import Collection, Sequence

from homeserver.protocol.authorization.auth_member import check_member
from homeserver.protocol.authorization.auth_power_levels import check_power_levels
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.auth_types import (
    auth_types_for,
    authorising_user,
    is_user_id,
)
from homeserver.protocol.authorization.rule_broken import RuleBroken, rule_broken
from homeserver.protocol.event_types import (
    ALIASES,
    CREATE,
    CREATE_KEY,
    MEMBER,
    POWER_LEVELS,
    REDACTION,
    THIRD_PARTY_INVITE,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.room_versions import find_room_version

__all__ = ["AuthState", "RuleBroken", "check_auth", "check_auth_events", "required_signers"]


def check_auth(event: Event, state: AuthState) -> None:
    """Check all rules except those on the list of auth events and on signatures.

    Returns if the event is allowed, else raises `RuleBroken`.
    """
    version, sender, event_type = event.version, event.sender, event.type

    if event_type == CREATE:
        check_create(event)
        return

    _check_room(event, state)

    if not state.is_federated and not _is_same_server(sender, state.create.sender):
        raise rule_broken(version, "4", f"the room is closed to the server of {sender}")

    if event_type == ALIASES and version.special_case_aliases_auth:
        check_aliases(event)
        return

    if event_type == MEMBER:
        check_member(event, state)
        return

    if state.membership(sender) != "join":
        raise rule_broken(version, "6", f"{sender} is not in the room")

    levels = state.power_levels
    own = levels.of(sender)
    if event_type == THIRD_PARTY_INVITE:
        if own < levels.invite:
            raise rule_broken(version, "7.1", f"{sender} may not invite")
        return

    if levels.for_event(event_type, event.is_state) > own:
        raise rule_broken(version, "8", f"{sender} does not have the power to send {event_type}")

    state_key = event.state_key
    if state_key is not None and state_key.startswith("@") and state_key != sender:
        raise rule_broken(version, "9", f"{sender} may not set the state of {state_key}")

    if event_type == POWER_LEVELS:
        check_power_levels(event, state)
    elif event_type == REDACTION and version.redactions_need_power:
        check_redaction(event, state)


def check_create(event: Event) -> None:
    """Rule 1: the create event."""
    version, content = event.version, event.content

    if event.prev_event_ids:
        raise rule_broken(version, "1.1", "a create event is the first of its room")

    # The rules rely on the event's schema.
    if event.state_key != "":
        raise rule_broken(version, "1.1", "the state key of a create event is empty")

    if version.room_id_is_create_hash:
        if "room_id" in event.pdu:
            raise rule_broken(version, "1.2", "the room id follows from the create event")
    elif not _is_same_server(event.room_id, event.sender):
        raise rule_broken(version, "1.2", "a room is created on the server that its id names")

    if "room_version" in content and not _is_known_version(content["room_version"]):
        raise rule_broken(version, "1.3", "the room version is not known")

    # 1.4 of versions 1 to 10
    if version.creator_in_content and "creator" not in content:
        raise RuleBroken("1.4", "the create event names no creator")

    if version.creators_outrank_everyone and "additional_creators" in content:
        creators = content["additional_creators"]
        if not isinstance(creators, list) or not all(map(is_user_id, creators)):
            raise rule_broken(version, "1.4", "additional_creators is not a list of user ids")


def check_aliases(event: Event) -> None:
    """Rule 4 of room versions 1 to 5: a server announces its aliases, even if not in the room."""
    if event.state_key is None:
        raise RuleBroken("4.1", "an aliases event needs a state key")

    if server_name_of(event.sender) != event.state_key:
        raise RuleBroken("4.2", f"{event.sender} cannot speak for {event.state_key}")


def check_redaction(event: Event, state: AuthState) -> None:
    """Rule 11 of room versions 1 and 2; later ones check a redaction when it is applied."""
    levels = state.power_levels

    # 11.1
    if levels.of(event.sender) >= levels.redact:
        return

    # 11.2
    if event.redacts is not None and _is_same_server(event.redacts, event.event_id):
        return

    raise RuleBroken("11.3", f"{event.sender} may not redact {event.redacts}")


def check_auth_events(
    event: Event, auth_events: Sequence[Event], rejected: Collection[str] = ()
) -> None:
    """Rule 3: an event has the auth events that the selection algorithm gives, and no others.

    `auth_events` are the events of `event.auth_event_ids`; `rejected` holds the ids of those among
    them that were rejected themselves. Raises `RuleBroken`.
    """
    version = event.version
    if event.type == CREATE:
        return
    allowed = auth_types_for(version, event.type, event.sender, event.state_key, event.content)
    seen: set[tuple[str, str | None]] = set()

    for auth_event in auth_events:
        pair = (auth_event.type, auth_event.state_key)
        if pair in seen:
            raise rule_broken(version, "3.1", f"two auth events for {pair}")
        if pair not in allowed:
            raise rule_broken(version, "3.2", f"{pair} does not authorise this event")
        if auth_event.event_id in rejected:
            raise rule_broken(version, "3.3", f"{auth_event.event_id} was rejected")
        if auth_event.room_id != event.room_id:
            raise rule_broken(version, "3.5", f"{auth_event.event_id} is in another room")
        seen.add(pair)

    if version.create_in_auth_events and CREATE_KEY not in seen:
        raise RuleBroken("2.4", "no create event among the auth events")


def required_signers(event: Event) -> set[str]:
    """The servers that must have signed an event.

    That is the sender's; in room versions 1 and 2 also that of the event id; and that of the user
    who authorises a restricted join (rule 5.2). An invite that redeems a third-party invite may be
    sent by any server that has the identity server's signature, so the sender's signature is not
    required.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
    """
    version, content = event.version, event.content
    signers = set()
    if not _redeems_third_party_invite(event):
        signers.add(server_name_of(event.sender))
    if version.event_id_domain_must_sign:
        signers.add(server_name_of(event.event_id))
    authorising = authorising_user(version, content) if event.type == MEMBER else None
    if authorising is not None:
        signers.add(server_name_of(authorising))
    return signers


def _check_room(event: Event, state: AuthState) -> None:
    """The room exists: rule 2, or rule 2.4 if the create event is an auth event."""
    create = state.found_create
    if event.version.create_in_auth_events:
        if create is None:
            raise RuleBroken("2.4", "the room has no create event")
    elif create is None or create.room_id != event.room_id:
        raise rule_broken(event.version, "2", "the room id is not that of a create event")


def _is_known_version(value: object) -> bool:
    return isinstance(value, str) and find_room_version(value) is not None


def _is_same_server(one: str, other: str) -> bool:
    return one.partition(":")[2] == other.partition(":")[2]


def _redeems_third_party_invite(event: Event) -> bool:
    content = event.content
    return (
        event.type == MEMBER
        and content.get("membership") == "invite"
        and "third_party_invite" in content
    )
