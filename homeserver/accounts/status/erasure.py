"""Erased users: whose events are shown to newcomers as if they were redacted.

Who closes an account may ask to be erased. There are few such users and every event of a timeline
is judged by its sender, so all of them are kept in memory, and a look-up costs one hash.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from homeserver.storage.accounts.users import erased_users
from homeserver.storage.database.database import Database


class ErasedUsers:
    """The erased users of this server. `load` it before the first request."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._users: set[str] = set()

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    def __bool__(self) -> bool:
        """Whether there is any: where nobody was erased, nothing need be looked at."""
        return bool(self._users)

    async def load(self) -> None:
        """Read who was erased before this start of the server."""
        self._users.update(await self._db.run(erased_users))

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """An account was closed: note it if the user asked to be erased."""
        if erase:
            self._users.add(user_id)
