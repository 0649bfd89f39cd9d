"""The requester: the value that every authenticated handler receives."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """The account and device behind an access token.

    `device_id` is `None` for tokens without a device (administrative ones), and for application
    services that act as a user without naming a device. `token` is the id of the access token's
    row, never the token itself. `appservice` is the id of the application service that acts as the
    user, if one does.
    """

    user_id: str
    device_id: str | None
    token: int = 0
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    appservice: str | None = None
    is_rate_limited: bool = True
