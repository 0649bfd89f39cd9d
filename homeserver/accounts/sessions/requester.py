"""The requester: the value that every authenticated handler receives."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """The account and device behind an access token.

    `device_id` is `None` only for tokens without a device (administrative ones). `token` is the id
    of the access token's row, never the token itself.
    """

    user_id: str
    device_id: str | None
    token: int = 0
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
