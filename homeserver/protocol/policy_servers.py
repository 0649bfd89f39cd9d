"""Policy servers: which one a room has, and its signatures on recommended events.

A policy server signs the events that it recommends, with its own key in the room's state, so that
every server can verify a recommendation without asking it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.protocol.event_types import POLICY_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.signing.signatures import BadSignature, verify_event_signature

KEY_ID = "ed25519:policy_server"
"""The key id of all signatures of policy servers."""

_TO_STANDARD_BASE64 = str.maketrans("-_", "+/")


class PolicyServer(msgspec.Struct, frozen=True):
    """A policy server, and the public key of its signatures."""

    name: str
    public_key: str

    def recommends(self, event: Event) -> bool:
        """Whether the event has the policy server's signature."""
        try:
            verify_event_signature(event.version, event.pdu, self.name, KEY_ID, self.public_key)
        except BadSignature:
            return False
        return True


def parse_policy(content: Mapping[str, Any]) -> PolicyServer | None:
    """The policy server that the content of `m.room.policy` names; `None` if it is not valid.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room
    """
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, Mapping) else None
    if not isinstance(via, str) or not isinstance(key, str) or not is_valid_server_name(via):
        return None
    # Keys may be in either alphabet of Base64.
    return PolicyServer(via, key.translate(_TO_STANDARD_BASE64))


def is_exempt(event_type: str, state_key: str | None) -> bool:
    """Whether events of this kind need no policy server; else a room could not remove a broken one.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures
    """
    return (event_type, state_key) == POLICY_KEY
