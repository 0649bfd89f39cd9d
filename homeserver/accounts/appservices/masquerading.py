"""Masquerading: application services that act as one of their users.

The request names the user, and perhaps the device, in its query (`user_id`, `device_id`). Without
`user_id` the application service acts as its own user.

Spec: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
"""

from collections.abc import Mapping

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import (
    Forbidden,
    InvalidParam,
    UnknownDevice,
    UserLocked,
)
from homeserver.protocol.proposals.unstable_names import MASQUERADED_DEVICE
from homeserver.storage.accounts.devices import find_device
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Connection

DEVICE_PARAMETERS = ("device_id", MASQUERADED_DEVICE)


class AssertedIdentity(msgspec.Struct, frozen=True):
    """The user and the device that an application service acts as in a request."""

    appservice: Appservice
    user_id: str
    device_id: str | None


def asserted_identity(
    appservice: Appservice, parameters: Mapping[str, list[str]]
) -> AssertedIdentity:
    """The identity that a request asserts by its query parameters.

    Raises `InvalidParam`, and `Forbidden` for users of others.
    """
    user_id = _single(parameters, "user_id") or appservice.sender
    if not appservice.covers_user(user_id):
        raise Forbidden("The user is not in a namespace of the application service")
    devices = [_single(parameters, name) for name in DEVICE_PARAMETERS]
    return AssertedIdentity(appservice, user_id, devices[0] or devices[1])


async def load_requester(db: Connection, identity: AssertedIdentity) -> Requester:
    """The requester for an asserted identity.

    Raises `Forbidden` for a user that is not registered or is deactivated, `UserLocked`, and
    `UnknownDevice`.
    """
    appservice, user_id, device_id = identity.appservice, identity.user_id, identity.device_id
    user = await find_user(db, user_id)
    if user is None or user.is_deactivated:
        raise Forbidden("The application service has not registered this user")
    if user.is_locked:
        raise UserLocked("This account has been locked")
    if device_id is not None and await find_device(db, user_id, device_id) is None:
        raise UnknownDevice("The user does not have this device")
    return Requester(
        user_id=user_id,
        device_id=device_id,
        is_guest=user.is_guest,
        is_admin=user.is_admin,
        is_suspended=user.is_suspended,
        appservice=appservice.id,
        is_rate_limited=appservice.rate_limited and user_id != appservice.sender,
        is_owned=user.appservice == appservice.id or appservice.owns_user(user_id),
    )


def _single(parameters: Mapping[str, list[str]], name: str) -> str | None:
    values = parameters.get(name, [])
    if len(values) > 1:
        raise InvalidParam(f"The query parameter {name} was sent more than once")
    return values[0] if values else None
