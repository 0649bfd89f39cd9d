"""The checks on receipt of an event that need the room's state: rejection and soft failure.

They follow the checks that need only the event itself: its format, its signatures, its hash. The
caller passes all that an event is checked against. A refusal is the number of the rule in the
specification of the room version, and a sentence.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Sequence

from homeserver.protocol.authorization.auth_rules import check_auth, check_auth_events
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.rule_broken import RuleBroken
from homeserver.protocol.event_types import CREATE_KEY
from homeserver.protocol.events import Event

MAX_SENTENCE = 300  # characters


def check_by_auth_events(
    event: Event, auth_events: Sequence[Event], create: Event | None, rejected: Collection[str]
) -> str | None:
    """The reason to reject an event by its auth events (check 4), or `None`.

    `auth_events` are all events of `event.auth_event_ids`, `rejected` the ids of those that were
    rejected. `create` is the create event that the room id implies, in room versions where it does.
    """
    state = {
        (cited.type, cited.state_key): cited
        for cited in auth_events
        if cited.state_key is not None and cited.event_id not in rejected
    }
    if create is not None and create.event_id not in rejected:
        state[CREATE_KEY] = create
    try:
        check_auth_events(event, auth_events, rejected)
        check_auth(event, AuthState(state))
    except RuleBroken as broken:
        return _refusal(broken)
    return None


def check_by_state(event: Event, state: AuthState) -> str | None:
    """The reason why the rules refuse an event in a state (checks 5 and 6), or `None`."""
    try:
        check_auth(event, state)
    except RuleBroken as broken:
        return _refusal(broken)
    return None


def _refusal(broken: RuleBroken) -> str:
    # The sentence quotes what another server wrote: any text, of any length.
    sentence = str(broken).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return f"rule {broken.rule}: {sentence[:MAX_SENTENCE]}"
