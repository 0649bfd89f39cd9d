"""Searches of the user directory.

A search reads the index in the scopes that the searcher may see: the rooms that they are in, the
rooms that everybody may see, and, if so configured, all users of this server. In each scope it
reads a bounded number of entries next to the term, so its cost depends on the number of the
searcher's rooms, but not on the number of users.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-directory
"""

from collections.abc import Sequence

import msgspec

from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.user_directory.keys import NAME, USER_ID
from homeserver.protocol.user_directory.ranking import DirectoryTerm, FoundUser, Rank, rank
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.user_directory.entries import (
    EVERYBODY,
    LOCAL_USERS,
    WantedKeys,
    find_candidates,
)

MAX_LIMIT = 50  # users in a response
MAX_ROOMS = 2_000  # of the searcher, those with the newest membership
CANDIDATES = 4_000  # entries that are read in all scopes together
WORD_CANDIDATES = 600  # the same where each has to be compared with further words
RANKED_BESIDE_LIMIT = 50  # users whose order is decided by more than the index has
RETRY_AFTER_MS = 1_000


class DirectoryResults(msgspec.Struct, frozen=True):
    """The users who were found, best first; `is_limited` says that there are more."""

    users: Sequence[FoundUser]
    is_limited: bool


class UserSearch:
    """Searches for users; nobody finds anybody unless it `is_enabled`.

    At most `slots` searches are in progress, however quickly users type: the connections to the
    database are for others, too. `all_users`: every user of this server is found by everybody.
    """

    def __init__(
        self,
        db: Database,
        names: Names,
        user_rooms: UserRooms,
        server_name: str,
        *,
        slots: int,
        is_enabled: bool,
        all_users: bool,
    ) -> None:
        self._db = db
        self._names = names
        self._user_rooms = user_rooms
        self._server_name = server_name
        self._is_enabled = is_enabled
        self._public_scopes = [EVERYBODY, LOCAL_USERS] if all_users else [EVERYBODY]
        self._slots = FairSlots(slots, share=1, max_waiting=5, max_waiting_in_all=500)

    async def search(self, user_id: str, written: str, limit: int) -> DirectoryResults:
        """The users whom a term finds. Raises `LimitExceeded` where too many searches wait."""
        term = DirectoryTerm.parse(written)
        if not (term.text and self._is_enabled):
            return DirectoryResults((), is_limited=False)
        limit = min(limit, MAX_LIMIT)
        try:
            async with self._slots.slot(user_id):
                found = await self._find(user_id, term, limit)
        except QueueFull:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many searches wait for others") from None
        users = [user for _, user in sorted(found.values(), key=lambda ranked: ranked[0])]
        return DirectoryResults(users[:limit], is_limited=len(users) > limit)

    async def _find(
        self, user_id: str, term: DirectoryTerm, limit: int
    ) -> dict[str, tuple[Rank, FoundUser]]:
        """Enough users for a page, and one more if there are more; those who match best."""
        scopes = [*await self._rooms_of(user_id), *self._public_scopes]
        searcher = await self._names.find_nid(user_id)
        found: dict[str, tuple[Rank, FoundUser]] = {}
        for keys in _steps(term, max(CANDIDATES // len(scopes), limit + 1)):
            candidates = await self._db.run(
                find_candidates, scopes, keys, searcher or 0, limit + RANKED_BESIDE_LIMIT
            )
            for each in candidates:
                user = FoundUser(
                    each.user_id, each.display_name, each.avatar_url, is_shared=each.scope > 0
                )
                found.setdefault(each.user_id, (rank(term, user, self._server_name), user))
            if len(found) > limit:
                break
        return found

    async def _rooms_of(self, user_id: str) -> list[int]:
        rooms = await self._user_rooms.of(user_id)
        joined = [
            (place.position, nid) for nid, place in rooms.items() if place.membership == "join"
        ]
        return [nid for _, nid in sorted(joined, reverse=True)[:MAX_ROOMS]]


def _steps(term: DirectoryTerm, per_scope: int) -> list[WantedKeys]:
    """The parts of the index that are read, one after the other, until enough is found.

    First the term as the beginning of a name; then within a name; then all of its words, in any
    order.
    """
    in_all = 2 * MAX_ROOMS * per_scope  # no bound beside `per_scope`
    if term.is_id:
        return [WantedKeys([USER_ID + term.text], per_scope, in_all)]
    steps = [
        WantedKeys([NAME + term.text, USER_ID + term.text], per_scope, in_all),
        WantedKeys([term.text], per_scope, in_all),
    ]
    words = term.words
    if len(words) > 1:
        starts = [mark + words[0] for mark in (NAME, USER_ID, "")]
        steps.append(WantedKeys(starts, WORD_CANDIDATES, WORD_CANDIDATES, words))
    return steps
