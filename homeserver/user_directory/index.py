"""The index of the user directory: makes it agree with rooms and profiles.

Each user has an entry in the scope of each room that they are joined to; one in the scope
`EVERYBODY` if everybody may see the members of one of these rooms; and one in `LOCAL_USERS` if they
have an account here. Users of this server are called in all of them as in their profile. Users of
other servers are called in a room as in that room, and in `EVERYBODY` as in the newest of the rooms
that everybody may see: so no name of a private room is seen, or can be searched for, outside of it.

Nothing is taken from what a change says. What is read is what the database has now, so changes may
be handled twice, or in part; a lock keeps an older reading from replacing a newer one.
"""

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.retry_pauses import Stopped
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.user_directory.keys import keys_of
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.user_directory import sources
from homeserver.storage.user_directory.accounts import Account
from homeserver.storage.user_directory.entries import (
    EVERYBODY,
    LOCAL_USERS,
    DirectoryEntry,
    entries_of,
    members_within,
    replace_entries,
)
from homeserver.storage.user_directory.rooms import (
    IndexedRoom,
    Visibility,
    indexed_room,
    set_indexed_room,
)
from homeserver.storage.user_directory.sources import MemberRow
from homeserver.user_directory.changes import DirectoryChange, LocalProfileChanged, RoomUsersChanged

CHUNK = 100  # entries that are made without yielding to the reactor
MAX_TEXT = 2_048  # bytes of a name or avatar, as in profiles of this server

_Text = tuple[str | None, str | None]  # name and avatar


class UserDirectoryIndex:
    """Writes the index. After `stop` everything that is in progress raises `Stopped`."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        summaries: RoomSummaries,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._summaries = summaries
        self._is_stopped = False
        # A whole room is indexed by one caller at a time; a step of the work excludes all others.
        self._locks: KeyedLocks[int | None] = KeyedLocks()

    def stop(self) -> None:
        """End the work that is in progress; the next process begins it again."""
        self._is_stopped = True

    def handle(self, change: DirectoryChange) -> Awaitable[None]:
        """Follow a change. Raises `Unavailable` and `Stopped`, as all methods do."""
        if isinstance(change, LocalProfileChanged):
            return self.update_user(change.user_id)
        return self._follow_room(change)

    async def update_room(self, room_nid: int) -> None:
        """Index a whole room, unless that is done."""
        async with self._locks.hold(room_nid):
            indexed = await self._db.run(indexed_room, room_nid)
            if indexed is None or not indexed.is_complete:
                await self._index_all(room_nid, await self._visibility(room_nid), indexed)

    async def update_user(self, user_id: str) -> None:
        """Let all entries of a user of this server be as the profile is."""
        member = await self._names.find_nid(user_id)
        if member is None:
            return
        scopes = [*await self._db.run(sources.joined_rooms, member), EVERYBODY, LOCAL_USERS]
        for start in range(0, len(scopes), CHUNK):
            async with self._step():
                text = (await self._profiles([user_id]))[user_id]
                old = await self._db.run(entries_of, scopes[start : start + CHUNK], [member])
                await self._replace(old, [_entry(one.scope, member, user_id, text) for one in old])

    async def update_accounts(self, accounts: Sequence[Account]) -> None:
        """Let those of these users be found by everybody, where that is configured, who may be.

        Guests and the users of application services are found only in rooms.
        """
        async with self._step():
            members = await self._names.nids([account.user_id for account in accounts])
            listed = [account.user_id for account in accounts if account.is_listed]
            texts = await self._profiles(listed)
            new = [_entry(LOCAL_USERS, members[each], each, texts[each]) for each in listed]
            old = await self._db.run(entries_of, [LOCAL_USERS], list(members.values()))
            await self._replace(old, new)

    async def _follow_room(self, change: RoomUsersChanged) -> None:
        async with self._locks.hold(change.room_nid):
            indexed = await self._db.run(indexed_room, change.room_nid)
            if indexed is None or not indexed.is_complete or self._may_change(change):
                visibility = await self._visibility(change.room_nid)
                if indexed != IndexedRoom(visibility, is_complete=True):
                    await self._index_all(change.room_nid, visibility, indexed)
                    return
                indexed = IndexedRoom(visibility, is_complete=True)
            if indexed.visibility == "nobody":
                return
            if change.members is None:
                await self._index_members(change.room_nid, indexed.visibility, None)
            else:
                nids = await self._names.find_nids(change.members)
                await self._index_members(change.room_nid, indexed.visibility, nids.values())

    def _may_change(self, change: RoomUsersChanged) -> bool:
        """Whether it may have changed who can see the members: this server may have left."""
        return (
            change.has_settings
            or change.members is None
            or any(self._is_local(user_id) for user_id in change.members)
        )

    async def _visibility(self, room_nid: int) -> Visibility:
        """Who may see the members of a room.

        Where no user of this server is left nobody may: the server does not know who is there now.
        """
        server_name = self._rooms.local_server.server_name
        room = self._rooms.loaded(room_nid)
        if room is not None:
            is_here = server_name in room.joined_servers
        else:
            is_here = await self._db.run(sources.has_joined_user_of, room_nid, server_name)
        if not is_here:
            return "nobody"
        summary = await self._summaries.of(room_nid)
        if summary is None:
            return "nobody"
        return "everybody" if summary.world_readable or summary.join_rule == "public" else "members"

    async def _index_all(
        self, room_nid: int, visibility: Visibility, before: IndexedRoom | None
    ) -> None:
        await self._db.run(set_indexed_room, room_nid, IndexedRoom(visibility, is_complete=False))
        # Also after a crash: what the row says may not have been done.
        await self._index_members(room_nid, visibility, None, was_indexed=before is not None)
        await self._db.run(set_indexed_room, room_nid, IndexedRoom(visibility, is_complete=True))

    async def _index_members(
        self,
        room_nid: int,
        visibility: Visibility,
        members: Iterable[int] | None,
        *,
        was_indexed: bool = False,
    ) -> None:
        """Renew the entries of members of a room; `None`: of all who are or were in it.

        `was_indexed` says that there may be entries for another visibility.
        """
        if members is None:
            joined = await self._db.run(sources.joined_members, room_nid)
            members = {*joined, *await self._db.run(members_within, room_nid)}
        in_order = sorted(members)
        scopes = [room_nid, EVERYBODY] if was_indexed or visibility == "everybody" else [room_nid]
        for start in range(0, len(in_order), CHUNK):
            some = in_order[start : start + CHUNK]
            async with self._step():
                entries: list[DirectoryEntry] = []
                if visibility != "nobody":
                    rows = await self._db.run(sources.joined_rows, room_nid, some)
                    entries += await self._entries(room_nid, rows)
                if EVERYBODY in scopes:
                    entries += await self._entries(EVERYBODY, await self._public_rows(some))
                await self._replace(await self._db.run(entries_of, scopes, some), entries)

    async def _public_rows(self, members: Sequence[int]) -> list[MemberRow]:
        """Those of some users whom everybody may see, with what says how they are called."""
        names = await self._names.names(members)
        local = [member for member in members if self._is_local(names[member])]
        others = [member for member in members if not self._is_local(names[member])]
        # Users of this server are called as in their profile: any of their rooms will do.
        rows = await self._db.run(sources.some_public_rows, local) if local else []
        return rows + (await self._db.run(sources.public_rows, others) if others else [])

    async def _entries(self, scope: int, rows: Sequence[MemberRow]) -> list[DirectoryEntry]:
        local = [row.user_id for row in rows if self._is_local(row.user_id)]
        texts = await self._profiles(local) if local else {}
        return [
            _entry(scope, row.member, row.user_id, texts.get(row.user_id) or _member_text(row.json))
            for row in rows
            if is_valid_user_id(row.user_id)
        ]

    async def _profiles(self, user_ids: Sequence[str]) -> dict[str, _Text]:
        """The names and avatars in profiles; of users without a profile, none."""
        fields = (DISPLAYNAME, AVATAR_URL)
        rows = await self._db.run(sources.profile_fields, user_ids, fields)
        values = {(user_id, field): msgspec.json.decode(value) for user_id, field, value in rows}
        return {
            user_id: _text(values.get((user_id, DISPLAYNAME)), values.get((user_id, AVATAR_URL)))
            for user_id in user_ids
        }

    async def _replace(
        self, present: Iterable[DirectoryEntry], wanted: Iterable[DirectoryEntry]
    ) -> None:
        """Replace some entries by those that are wanted in their place."""
        old = {_place(each): each for each in present}
        new = {_place(each): each for each in wanted}
        unchanged = {place for place, entry in new.items() if old.get(place) == entry}
        if unchanged != old.keys() | new.keys():
            await self._db.transaction(
                replace_entries,
                [entry for place, entry in old.items() if place not in unchanged],
                [entry for place, entry in new.items() if place not in unchanged],
            )

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        """A step of the work: what it reads is not older than what others have written before."""
        async with self._locks.hold(None):
            if self._is_stopped:
                raise Stopped
            yield

    def _is_local(self, user_id: str) -> bool:
        return self._rooms.local_server.is_local(user_id)


def _entry(scope: int, member: int, user_id: str, text: _Text) -> DirectoryEntry:
    keys = "".join(f"\n{key}" for key in keys_of(user_id, text[0]))
    return DirectoryEntry(scope, member, *text, keys)


def _place(entry: DirectoryEntry) -> tuple[int, int]:
    return entry.scope, entry.member


class _MemberEvent(msgspec.Struct):
    content: dict[str, Any]


def _member_text(json: bytes | None) -> _Text:
    """The name and avatar of a member event; none for one that was redacted."""
    if json is None:
        return None, None
    content = msgspec.json.decode(json, type=_MemberEvent).content
    return _text(content.get("displayname"), content.get("avatar_url"))


def _text(display_name: Any, avatar_url: Any) -> _Text:
    avatar = _storable(avatar_url)
    return (
        _storable(display_name),
        avatar if avatar is not None and avatar.startswith("mxc://") else None,
    )


def _storable(value: Any) -> str | None:
    """What a user or another server has set as a name, if it is one; PostgreSQL has no NUL."""
    if not isinstance(value, str) or not value.strip() or len(value.encode()) > MAX_TEXT:
        return None
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
