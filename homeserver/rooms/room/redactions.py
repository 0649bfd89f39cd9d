"""Redactions: who may redact which event.

Spec: https://spec.matrix.org/v1.19/client-server-api/#redactions
"""

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event


def check_redaction(redaction: Event, target: Event, state: AuthState) -> None:
    """Raise `Forbidden` unless the sender wrote the target, or may redact others' events."""
    if redaction.sender == target.sender:
        return
    levels = state.power_levels
    if levels.of(redaction.sender) < levels.redact:
        raise Forbidden("You may not redact the events of others in this room")
