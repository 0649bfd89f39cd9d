"""Scopes: what a client may do, and as which device.

Clients use the names of the proposal (MSC2967) too, some in place of the specified ones and some
beside them: the granted scope has the names that the client used. Other scope tokens are ignored,
as RFC 6749 allows; the response says what was granted.

Spec: https://spec.matrix.org/v1.19/client-server-api/#scope
"""

import re
from typing import Final

import msgspec

from homeserver.protocol.oauth.errors import INVALID_SCOPE, OAuthError
from homeserver.protocol.proposals.unstable_names import UNSTABLE_SCOPE

API: Final = ("urn:matrix:client:api:*", f"{UNSTABLE_SCOPE}api:*")
DEVICE: Final = ("urn:matrix:client:device:", f"{UNSTABLE_SCOPE}device:")
MAX_SCOPE = 2_048  # characters
MAX_DEVICE_ID = 255  # characters

_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class Scope(msgspec.Struct, frozen=True):
    """A scope that can be granted: full access, as one device."""

    device_id: str
    text: str


def parse_scope(text: str) -> Scope:
    """The scope of a request. Raises `OAuthError`."""
    tokens = [*dict.fromkeys(token for token in text.split(" ") if token)]
    if len(text) > MAX_SCOPE or not all(map(_TOKEN.fullmatch, tokens)):
        raise OAuthError(INVALID_SCOPE, "the scope is too long, or has invalid characters")
    if not any(token in API for token in tokens):
        raise OAuthError(INVALID_SCOPE, f"the scope lacks {API[0]}")
    devices = [token for token in tokens if token.startswith(DEVICE)]
    device_ids = {_device_id(token) for token in devices}
    if len(device_ids) != 1:
        raise OAuthError(INVALID_SCOPE, f"the scope needs exactly one {DEVICE[0]} token")
    device_id = device_ids.pop()
    if not 0 < len(device_id) <= MAX_DEVICE_ID:
        raise OAuthError(INVALID_SCOPE, f"a device id has 1 to {MAX_DEVICE_ID} characters")
    granted = " ".join(token for token in tokens if token in API or token in devices)
    return Scope(device_id, granted)


def _device_id(token: str) -> str:
    return next(token.removeprefix(prefix) for prefix in DEVICE if token.startswith(prefix))
