"""Erased users: later members of a room see their events as if they were redacted.

A user who deactivates an account may request erasure. There are few such users and every event of a
timeline is checked by its sender, so all of them are kept in memory, and a look-up costs one hash.

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
        """Whether there is any: without erased users no event need be checked."""
        return bool(self._users)

    async def load(self) -> None:
        """Load the users that were erased before this start of the server."""
        self._users.update(await self._db.run(erased_users))

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Record a deactivated user if they requested erasure."""
        if erase:
            self._users.add(user_id)
