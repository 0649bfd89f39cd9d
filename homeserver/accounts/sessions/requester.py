"""The requester: the value that every authenticated handler receives."""

import msgspec

APPSERVICE_SCOPE = "\x1f"
"""The first character of the scope of an application service; no device id contains it."""

DELAYED_SCOPE = "\x1e"
"""The scope of delayed events, which have their ids as transaction ids."""


class Requester(msgspec.Struct, frozen=True):
    """The account and device behind an access token.

    `device_id` is `None` for tokens without a device (administrative ones), and for application
    services that act as a user without naming a device. `token` is the id of the access token's
    row, never the token itself. `appservice` is the id of the application service that acts as the
    user, if one does. `event_ts` is the time, in ms since the epoch, that it wants the event of its
    request to have.
    `is_oauth`: the token is one of the OAuth 2.0 API.
    `is_owned` says that the user is a user of that application service only: it registered the
    user, or the name is exclusive to it.
    """

    user_id: str
    device_id: str | None
    token: int = 0
    is_guest: bool = False
    is_admin: bool = False
    is_suspended: bool = False
    appservice: str | None = None
    is_rate_limited: bool = True
    event_ts: int | None = None
    is_owned: bool = False
    is_oauth: bool = False

    @property
    def transaction_scope(self) -> str:
        """What its transaction ids belong to: the device, or the application service without one.

        Empty for a token of neither, which has no transactions.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
        """
        if self.device_id is not None:
            return self.device_id
        return "" if self.appservice is None else APPSERVICE_SCOPE + self.appservice
