"""The flows with which the owner of an account confirms an operation: by password, or by single
sign-on, whichever they have.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api
"""

from collections.abc import Sequence

from homeserver.storage.accounts.external_ids import has_external_id
from homeserver.storage.accounts.users import User, find_user
from homeserver.storage.database.database import Database

PASSWORD = "m.login.password"
SSO = "m.login.sso"
Flows = Sequence[Sequence[str]]
PASSWORD_FLOWS: Flows = ((PASSWORD,),)


async def password_flows(_user_id: str) -> Flows:
    """The flows of a server without single sign-on: every user has a password."""
    return PASSWORD_FLOWS


class OwnerFlows:
    """Finds the flows of a user. `providers` are the ids of the identity providers."""

    def __init__(self, db: Database, providers: Sequence[str], *, with_password: bool) -> None:
        self._db = db
        self._providers = providers
        self._with_password = with_password

    async def find(self, user_id: str) -> Flows:
        """The flows that the user can complete, that of a password first.

        For a user who can complete none, the flow of a password, which then fails.
        """
        user: User | None = await self._db.run(find_user, user_id)
        flows = []
        if self._with_password and user is not None and user.password_hash is not None:
            flows.append((PASSWORD,))
        if await self._db.run(has_external_id, user_id, self._providers):
            flows.append((SSO,))
        return flows or PASSWORD_FLOWS
