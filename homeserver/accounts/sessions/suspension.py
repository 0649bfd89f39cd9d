"""Suspended accounts: they read, leave, and redact what they said, and do nothing new.

What a suspended user may do depends on what is in a request, not on its path: they may redact their
own message but send no other, and set their membership to `leave` but to nothing else. Nor does it
depend on the transport. So it is not checked by route, but where a change begins: every domain
function that does something new on behalf of a user calls `check_not_suspended` first.

Without the check remain, as the text asks: logging in and out, reading, verifying devices and
writing keys, leaving rooms and turning down invites, redacting own events, closing the account, and
what only the user themselves sees, such as account data, tags and receipts. Reporting stays open
too: who was suspended may still be a victim.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
"""

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import UserSuspended


def check_not_suspended(caller: Requester) -> None:
    """Raise `UserSuspended` for a caller whose account is suspended."""
    if caller.is_suspended:
        raise UserSuspended("You cannot do this while your account is suspended")
