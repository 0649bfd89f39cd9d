"""The rooms with an alias in the namespaces of an application service."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.rooms.room.changes import RoomAliasChanged, RoomAliasesMoved
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.room_aliases import all_aliases

PAGE_ALIASES = 1_000


class AliasInterest:
    """The application services that are interested in each room for its aliases.

    `load` before the first entry of the log; `apply` is to be subscribed to it.
    """

    def __init__(self, db: Database, appservices: Appservices) -> None:
        self._db = db
        self._appservices = appservices
        self._aliases: dict[int, set[str]] = defaultdict(set)  # those in any namespace, by room
        self._rooms: dict[str, int] = {}

    async def load(self) -> None:
        """Find the aliases that are in namespaces; again after these have changed."""
        self._aliases.clear()
        self._rooms.clear()
        if not any(each.aliases.namespaces for each in self._appservices.all):
            return
        after = ""
        while page := await self._db.run(all_aliases, after, PAGE_ALIASES):
            for row in page:
                self._set(row.alias, row.room)
            after = page[-1].alias

    def of_room(self, room_nid: int) -> Collection[Appservice]:
        """The application services to which an alias of a room belongs."""
        aliases = self._aliases.get(room_nid)
        if not aliases:
            return ()
        return {each for alias in aliases for each in self._appservices.covering_alias(alias)}

    def apply(self, entries: Sequence[Any]) -> None:
        """Follow changes of aliases (called by the log)."""
        for entry in entries:
            if isinstance(entry, RoomAliasChanged):
                self._remove(entry.alias)
                if entry.room is not None:
                    self._set(entry.alias, entry.room)
            elif isinstance(entry, RoomAliasesMoved):
                for alias in self._aliases.pop(entry.room, ()):
                    self._set(alias, entry.successor)

    def _set(self, alias: str, room: int) -> None:
        if self._appservices.covering_alias(alias):
            self._aliases[room].add(alias)
            self._rooms[alias] = room

    def _remove(self, alias: str) -> None:
        room = self._rooms.pop(alias, None)
        if room is not None:
            self._aliases[room].discard(alias)
            if not self._aliases[room]:
                del self._aliases[room]
