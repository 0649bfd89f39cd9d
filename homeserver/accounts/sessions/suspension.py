"""Suspended accounts: they may read, leave, and redact their own events, but do nothing new.

The permissions of a suspended user depend on the content of a request, not on its path: they may
redact their own message but send no other, and set their membership to `leave` but to nothing else.
Nor do they depend on the transport. So they are not checked by route, but where a change begins:
every domain function that does something new for a user calls `check_not_suspended` first.

As the specification requires, these have no check: logging in and out, reading, verifying devices
and writing keys, leaving rooms and declining invites, redacting own events, deactivating the
account, and data that only the user sees, such as account data, tags and receipts. Reporting stays
allowed too: a suspended user may still be a victim.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
"""

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import UserSuspended


def check_not_suspended(caller: Requester) -> None:
    """Raise `UserSuspended` for a caller whose account is suspended."""
    if caller.is_suspended:
        raise UserSuspended("You cannot do this while your account is suspended")
