"""Recent changes of device lists, for the clients and servers that have to hear of them.

The last change of each user is kept in the order of publication, so that "who changed since this
token" costs as much as there is new. Older ones are read from the database.

Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Collection, Sequence
from typing import Any

from homeserver.encryption.changes import DeviceListChanged, UserSignaturesChanged
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import users_signed_after
from homeserver.storage.encryption.device_lists import shared_lists_changed
from homeserver.streams.log import Log
from homeserver.streams.recent_changes import RecentChanges
from homeserver.streams.sync_tokens import SyncToken

MAX_CHANGES = 50_000  # users whose last change is in memory


class DeviceListChanges:
    """The changes of device lists, by user. `apply` is to be subscribed to the log."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._lists: RecentChanges[str, DeviceListChanged] = RecentChanges(
            MAX_CHANGES, log.position
        )
        self._signatures: RecentChanges[tuple[str, str], int] = RecentChanges(
            MAX_CHANGES, log.position
        )

    def apply(self, entries: Sequence[Any]) -> None:
        """Note the changes of a batch (called by the log)."""
        for entry in entries:
            if isinstance(entry, DeviceListChanged):
                self._lists.put(entry.user_id, entry.position, entry)
            elif isinstance(entry, UserSignaturesChanged):
                for user_id in entry.user_ids:
                    self._signatures.put((entry.signer, user_id), entry.position, entry.position)

    async def since(self, user_id: str, token: SyncToken, rooms: Collection[int]) -> dict[str, int]:
        """The users with a change above a token that a user has to know, with its position.

        They share one of the `rooms` with the user, are the user themselves, or the user has signed
        a key of theirs: that is a change of the user's own data, and the position is 0.
        """
        found: dict[str, int] = {}
        if token.base < self._lists.floor:
            rows = await self._db.run(shared_lists_changed, user_id, list(rooms), token.base)
            found = {each: at for each, at in rows.items() if at > token.of_user(each)}
        else:
            for each, change in self._lists.above(token.base):
                if change.position > token.of_user(each) and (
                    each == user_id or any(room in rooms for room in change.rooms)
                ):
                    found[each] = change.position
        own = token.of_user(user_id)
        if token.base < self._signatures.floor:
            signed = await self._db.run(users_signed_after, user_id, own)
        else:
            signed = [
                each
                for (signer, each), position in self._signatures.above(token.base)
                if signer == user_id and position > own
            ]
        for each in signed:
            found.setdefault(each, 0)
        return found
