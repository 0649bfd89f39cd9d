"""The rooms with an alias in the namespaces of an application service."""

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
        self._aliases = _Aliases()
        self._loading: _Aliases | None = None
        self._changes: list[RoomAliasChanged | RoomAliasesMoved] = []  # while it is being loaded

    async def load(self) -> None:
        """Find the aliases that are in namespaces; again after these have changed.

        What was known counts until then: no event of these rooms may be missed meanwhile.
        """
        self._changes = []
        loading = self._loading = _Aliases()
        if any(each.aliases.namespaces for each in self._appservices.all):
            after = ""
            while page := await self._db.run(all_aliases, after, PAGE_ALIASES):
                for row in page:
                    self._set(loading, row.alias, row.room)
                after = page[-1].alias
        for change in self._changes:
            self._follow(loading, change)
        self._aliases, self._loading, self._changes = loading, None, []

    def of_room(self, room_nid: int) -> Collection[Appservice]:
        """The application services to which an alias of a room belongs."""
        aliases = self._aliases.by_room.get(room_nid)
        if not aliases:
            return ()
        return {each for alias in aliases for each in self._appservices.covering_alias(alias)}

    def apply(self, entries: Sequence[Any]) -> None:
        """Follow changes of aliases (called by the log)."""
        for entry in entries:
            if isinstance(entry, RoomAliasChanged | RoomAliasesMoved):
                self._follow(self._aliases, entry)
                if self._loading is not None:
                    self._changes.append(entry)

    def _follow(self, aliases: "_Aliases", entry: RoomAliasChanged | RoomAliasesMoved) -> None:
        if isinstance(entry, RoomAliasesMoved):
            for alias in list(aliases.by_room.get(entry.room, ())):
                aliases.set(alias, entry.successor)
        elif entry.room is None:
            aliases.remove(entry.alias)
        else:
            self._set(aliases, entry.alias, entry.room)

    def _set(self, aliases: "_Aliases", alias: str, room: int) -> None:
        aliases.remove(alias)
        if self._appservices.covering_alias(alias):
            aliases.set(alias, room)


class _Aliases:
    """Aliases that are in any namespace, and the nids of their rooms."""

    def __init__(self) -> None:
        self.by_room: dict[int, set[str]] = {}
        self._rooms: dict[str, int] = {}

    def set(self, alias: str, room: int) -> None:
        self.remove(alias)
        self.by_room.setdefault(room, set()).add(alias)
        self._rooms[alias] = room

    def remove(self, alias: str) -> None:
        room = self._rooms.pop(alias, None)
        if room is not None:
            self.by_room[room].discard(alias)
            if not self.by_room[room]:
                del self.by_room[room]
