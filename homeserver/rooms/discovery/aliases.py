"""Room aliases: names for rooms that users can type.

Local aliases are stored here; those of other servers are looked up through `find_remote`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import Party, Provision, ask_nobody
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import (
    BadAlias,
    Forbidden,
    InvalidParam,
    MatrixError,
    NotFound,
    RemoteServerFailed,
    RoomInUse,
    TooLarge,
)
from homeserver.protocol.event_types import (
    CANONICAL_ALIAS,
    CANONICAL_ALIAS_KEY,
    HISTORY_VISIBILITY_KEY,
)
from homeserver.protocol.history_visibility import visibility_of
from homeserver.protocol.identifiers import InvalidIdentifier, parse_room_alias
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.room.changes import RoomAliasChanged, RoomAliasesMoved
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import room_aliases as storage
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log

MAX_OF_ROOM = 1_000
log = Logger()


class AliasTarget(msgspec.Struct, frozen=True):
    """The target of an alias: the room, and servers through which it can be joined."""

    room_id: str
    servers: list[str]


FindRemoteAlias = Callable[[str], Awaitable[AliasTarget]]


class AliasExists(MatrixError):
    """The alias is in use.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias
    """

    errcode, status = "M_UNKNOWN", 409


class Aliases:
    """Local aliases, and look-ups of remote ones."""

    def __init__(
        self,
        db: Database,
        names: Names,
        origin: LocalServer,
        rooms: RoomRegistry,
        find_remote: FindRemoteAlias,
        appservices: Appservices,
        log: Log,
        provision: Provision = ask_nobody,
    ) -> None:
        self._appservices = appservices
        self._log = log
        self._provision = provision
        self._find_remote = find_remote
        self._db = db
        self._names = names
        self._origin = origin
        self._rooms = rooms
        self._reserved: set[str] = set()

    def check_may_create(self, caller: Requester, alias: str) -> None:
        """Raise `InvalidParam` unless this is a valid alias of this server, and `Exclusive`."""
        self.check_local(alias)
        self._appservices.check_may_use_alias(caller, alias)

    def check_local(self, alias: str) -> None:
        """Raise `InvalidParam` unless this is a valid alias of this server."""
        try:
            parsed = parse_room_alias(alias)
        except InvalidIdentifier as error:
            raise InvalidParam(str(error)) from error
        if parsed.server_name != self._origin.server_name:
            raise InvalidParam("The alias belongs to another server")

    @asynccontextmanager
    async def reserved(self, alias: str | None) -> AsyncIterator[None]:
        """Reserve an alias for the room that is created in this block.

        Raises `InvalidParam` or `RoomInUse`. The alias is among the room's first rows, so neither
        ever exists without the other.
        """
        if alias is None:
            yield
            return
        self.check_local(alias)
        if alias in self._reserved:
            raise RoomInUse(f"{alias} is taken")
        self._reserved.add(alias)
        try:
            if await self._db.run(storage.find_alias, alias) is not None:
                raise RoomInUse(f"{alias} is taken")
            yield
        finally:
            self._reserved.discard(alias)

    async def add(self, caller: Requester, alias: str, room_id: str) -> None:
        """Point a new alias to a room that the caller is in, or any room for a bridge's alias.

        Raises `AliasExists`, `TooLarge`, and what `check_may_create` raises.
        """
        self.check_may_create(caller, alias)
        room = await self._rooms.get(room_id)
        if caller.appservice is None and room.membership(caller.user_id) != "join":
            raise Forbidden("You are not in the room")
        creator = await self._names.nid(caller.user_id)
        if len(await self.of_room(room)) >= MAX_OF_ROOM:
            raise TooLarge(f"A room has at most {MAX_OF_ROOM} aliases of this server")
        now = self._origin.now_ms()
        if alias in self._reserved:
            raise AliasExists(f"{alias} is taken")
        self._reserved.add(alias)
        try:
            if not await self._db.run(storage.add_alias, alias, room.room_nid, creator, now):
                raise AliasExists(f"{alias} is taken")
            await self._log.append(
                RoomAliasChanged(self._log.next_position(), alias, room.room_nid)
            )
        finally:
            self._reserved.discard(alias)

    async def resolve(self, alias: str, party: Party | None = None) -> AliasTarget:
        """The target of an alias. Raises `NotFound`, and what `find_remote` raises.

        With a `party` that needs the room, an application service may create an unknown alias.
        """
        try:
            server_name = parse_room_alias(alias).server_name
        except InvalidIdentifier as error:
            raise InvalidParam(str(error)) from error
        if server_name != self._origin.server_name:
            return await self._find_remote(alias)
        row = await self._db.run(storage.find_alias, alias)
        if row is None and party is not None:
            await self._provision(alias, party)
            row = await self._db.run(storage.find_alias, alias)
        room = None if row is None else await self._rooms.by_number(row.room)
        if room is None:
            raise NotFound(f"The room alias {alias} does not exist")
        servers = {user_id.partition(":")[2] for user_id in room.joined_members()}
        servers.discard(self._origin.server_name)
        return AliasTarget(room.room_id, [self._origin.server_name, *sorted(servers)])

    async def check_points_to(self, alias: str, room: Room) -> None:
        """Raise `BadAlias` unless the alias points to this room, `InvalidParam` if invalid."""
        try:
            target = await self.resolve(alias)
        except (NotFound, RemoteServerFailed) as error:
            raise BadAlias(str(error)) from error
        if target.room_id != room.room_id:
            raise BadAlias(f"{alias} points to another room")

    async def of_room(self, room: Room) -> list[str]:
        """All local aliases that point to a room, sorted."""
        return await self._db.run(storage.aliases_of, room.room_nid)

    async def migrate(self, old: Room, new: Room) -> None:
        """Point the aliases of a room to the one that has replaced it."""
        await self._db.run(storage.move_aliases, old.room_nid, new.room_nid)
        await self._log.append(
            RoomAliasesMoved(self._log.next_position(), old.room_nid, new.room_nid)
        )

    async def for_user(self, caller: Requester, room_id: str) -> list[str]:
        """The same for a member, or for all users if the room is world-readable.

        Raises `Forbidden`.
        """
        room = await self._rooms.find(room_id)
        if room is None or not (
            room.membership(caller.user_id) == "join" or await self._is_world_readable(room)
        ):
            raise Forbidden("You are not in the room")
        return await self.of_room(room)

    async def delete(self, caller: Requester, alias: str) -> None:
        """Remove an alias, also from the room's canonical alias event if the caller may set it.

        This is allowed to its creator, users who may set the room's canonical alias,
        administrators, and the application service that it is exclusive to; for others it raises
        `Forbidden`, or `Exclusive`.
        """
        if not caller.is_admin:
            self._appservices.check_may_use_alias(caller, alias)
        row = await self._db.run(storage.find_alias, alias)
        if row is None:
            raise NotFound(f"The room alias {alias} does not exist")
        creator = await self._names.name(row.creator)
        owner = self._appservices.owner_of_alias(alias)
        is_owner = owner is not None and owner.id == caller.appservice
        if not (caller.user_id == creator or caller.is_admin or is_owner):
            await self._check_power(caller, row.room)
        await self._db.run(storage.delete_alias, alias)
        await self._log.append(RoomAliasChanged(self._log.next_position(), alias, None))
        room = await self._rooms.by_number(row.room)
        if room is not None:
            await self._remove_from_canonical(caller, room, alias)

    async def _remove_from_canonical(self, caller: Requester, room: Room, alias: str) -> None:
        """Remove a deleted alias from the canonical alias event, if the caller may do that.

        The alias is deleted in any case: an alias that only the room names points nowhere.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
        """
        event = (await self._rooms.current(room, [CANONICAL_ALIAS_KEY])).get(CANONICAL_ALIAS_KEY)
        content = {} if event is None else event.shown.content
        remaining = without_alias(content, alias)
        if remaining == content or caller.is_suspended:
            return
        draft = EventDraft(CANONICAL_ALIAS, caller.user_id, remaining, state_key="")
        try:
            async with self._rooms.writing(room.room_id) as writer:
                await writer.send(draft)
        except MatrixError as error:
            log.info(
                "deleted {alias}, but {room} still names it: {error}",
                alias=alias,
                room=room.room_id,
                error=error,
            )

    async def _is_world_readable(self, room: Room) -> bool:
        state = await self._rooms.current(room, [HISTORY_VISIBILITY_KEY])
        visibility = state.get(HISTORY_VISIBILITY_KEY)
        content = None if visibility is None else visibility.event.content
        return visibility_of(content) == "world_readable"

    async def _check_power(self, caller: Requester, room_nid: int) -> None:
        room = await self._rooms.by_number(room_nid)
        if room is None:
            return
        levels = await self._rooms.power_levels(room)
        if room.membership(caller.user_id) != "join" or levels.of(
            caller.user_id
        ) < levels.for_event(CANONICAL_ALIAS, is_state=True):
            raise Forbidden("You may not delete this alias")


def without_alias(content: Mapping[str, Any], alias: str) -> dict[str, Any]:
    """The content of a canonical alias event without an alias."""
    remaining = dict(content)
    if remaining.get("alias") == alias:
        del remaining["alias"]
    others = content.get("alt_aliases")
    if isinstance(others, list) and alias in others:
        remaining["alt_aliases"] = [other for other in others if other != alias]
    return remaining
