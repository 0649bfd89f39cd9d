"""What application services may do with the accounts of their users.

The specification excepts account management from masquerading, and does not say what that means.

Spec: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
"""

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden


def check_may_manage_account(caller: Requester) -> None:
    """Raise `Forbidden` for an application service, unless the user is its own.

    It may act as the users of a namespace that it shares, such as all users of the server. But they
    have passwords: only they may change or close their accounts.
    """
    if caller.appservice is not None and not caller.is_owned:
        raise Forbidden("An application service may manage only the accounts of its own users")
