"""The room directories of application services, one for each of their networks.

Clients name such a list by the id of the protocol instance, `<id of the application service>|<id
of the network>`. It is separate from the list of the server.

Spec: https://spec.matrix.org/v1.19/application-service-api/#published-room-directories
"""

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.event_types import JOIN_RULES_KEY
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import appservice_rooms as storage
from homeserver.streams.log import Log

MAX_NETWORK_BYTES = 255


class NetworkListChanged(msgspec.Struct, frozen=True):
    """An application service listed a room in the directory of a network, or lists it no more."""

    position: int
    appservice: str
    network: str
    room: int
    is_listed: bool


def instance_id(appservice_id: str, network: str) -> str:
    """The id of a protocol instance: one network of one application service."""
    return f"{appservice_id}|{network}"


class NetworkLists:
    """The lists of the registered application services."""

    def __init__(
        self, db: Database, log: Log, rooms: RoomRegistry, appservices: Appservices
    ) -> None:
        self._db = db
        self._log = log
        self._rooms = rooms
        self._appservices = appservices

    async def set_listed(
        self, caller: Requester, network: str, room_id: str, *, is_listed: bool
    ) -> None:
        """List a room in the directory of a network of the caller, or stop listing it.

        Raises `InvalidParam`, `NotFound`, and `Forbidden` for callers that are no application
        service, and for rooms that it may not publish: neither the caller nor its own user is a
        member, and others may not simply join.
        """
        service = None if caller.appservice is None else self._appservices.by_id(caller.appservice)
        if service is None:
            raise Forbidden("Only application services have a room directory of their own")
        if not network or len(network.encode()) > MAX_NETWORK_BYTES:
            raise InvalidParam(f"The id of a network has 1 to {MAX_NETWORK_BYTES} bytes")
        room = await self._rooms.get(room_id)
        members = (caller.user_id, service.sender)
        is_member = any(room.membership(each) == "join" for each in members)
        if is_listed and not is_member and not await self._is_open(room):
            raise Forbidden("The application service is not in the room")
        self._log.check_open()
        entry = NetworkListChanged(
            self._log.next_position(), service.id, network, room.room_nid, is_listed
        )
        row = storage.SET_LISTED.row(service.id, network, room.room_nid, is_listed)
        await self._log.append(entry, [row])

    async def rooms_of(self, instance: str) -> list[int]:
        """Numbers of the rooms of one protocol instance; none if it is unknown."""
        for service in self._appservices.all:
            prefix = instance_id(service.id, "")
            if instance.startswith(prefix):
                network = instance.removeprefix(prefix)
                return await self._db.run(storage.rooms_of_network, service.id, network)
        return []

    async def rooms_of_all(self) -> list[int]:
        """Numbers of the rooms of all networks."""
        services = [each.id for each in self._appservices.all]
        return await self._db.run(storage.rooms_of_appservices, services) if services else []

    async def _is_open(self, room: Room) -> bool:
        rules = (await self._rooms.current(room, [JOIN_RULES_KEY])).get(JOIN_RULES_KEY)
        return rules is not None and rules.event.content.get("join_rule") == "public"
