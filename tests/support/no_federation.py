"""Other servers for a server that reaches none of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.remote.remote_keys_port import ClaimedKeys, KeysUnavailable
from homeserver.media.remote.remote_media_port import FileSink
from homeserver.protocol.encryption.remote_keys import RemoteDeviceList, RemoteKeys
from homeserver.protocol.errors import NotFound
from homeserver.protocol.events import Event
from homeserver.protocol.media.media_ids import MediaId
from homeserver.rooms.discovery.aliases import AliasTarget
from homeserver.rooms.discovery.directory import DirectoryPage, DirectoryQuery
from homeserver.rooms.discovery.space_children import RoomDescription
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.history import BackfillPort
from homeserver.rooms.history.timeline_segments import Depths
from homeserver.rooms.history.timestamps import TimestampRequest
from homeserver.rooms.membership.third_party_invites import InvitedAddress
from homeserver.rooms.room.room import Room
from homeserver.wiring.federation.remote import RemotePorts


class NoMemberships:
    """Local users cannot join, knock at or leave a room that the server is not in."""

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        raise NotFound("This server does not know the room")

    knock = leave = join

    async def sign_invite(self, event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
        raise NotFound("This server does not know the room")


class NoExchange:
    """Third-party invites of other servers' rooms come to nothing."""

    async def exchange(
        self, server: str, room_id: str, sender: str, user_id: str, signed: Mapping[str, Any]
    ) -> None:
        raise NotFound("This server is not in the room")


class NoBackfill:
    """Gaps in a room's history are never filled."""

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        return False


class NoTimestamps:
    """No event of another server is closer to a moment."""

    async def find(
        self, room: Room, moment: TimestampRequest, closer_than: int | None
    ) -> StoredEvent | None:
        return None


class NoSpaces:
    """The server knows nothing of rooms that it is not in."""

    async def describe(self, room_id: str, via: Sequence[str]) -> RoomDescription | None:
        return None

    def child_of(self, parent: str, room_id: str) -> RoomDescription | None:
        return None

    def is_inaccessible(self, parent: str, room_id: str) -> bool:
        return False


class NoKeys:
    """No keys of remote users are found."""

    async def fetch_device_list(self, user_id: str) -> RemoteDeviceList:
        raise KeysUnavailable(503, "No other server can be asked")

    async def query(
        self, server: str, wanted: Mapping[str, Sequence[str]]
    ) -> Mapping[str, RemoteKeys]:
        raise KeysUnavailable(503, "No other server can be asked")

    async def claim(self, server: str, claims: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        raise KeysUnavailable(503, "No other server can be asked")


class NoMedia:
    """No file of another server can be fetched."""

    async def fetch(self, name: MediaId, sink: FileSink, timeout_ms: int) -> None:
        raise NotFound("No other server can be asked")


async def find_no_alias(alias: str) -> AliasTarget:
    raise NotFound("No other server can be asked")


async def find_no_rooms(server: str, query: DirectoryQuery) -> DirectoryPage:
    raise NotFound("No other server can be asked")


async def find_no_profile(user_id: str, field: str | None) -> Mapping[str, bytes]:
    raise NotFound("No other server can be asked")


def no_remote(backfill: BackfillPort) -> RemotePorts:
    """The ports of a server that requests only the history of rooms from others."""
    return RemotePorts(
        memberships=NoMemberships(),
        third_party_exchange=NoExchange(),
        backfill=backfill,
        timestamps=NoTimestamps(),
        spaces=NoSpaces(),
        find_alias=find_no_alias,
        find_rooms=find_no_rooms,
        find_profile=find_no_profile,
        keys=NoKeys(),
        media=NoMedia(),
    )


async def invite_no_address(caller: Requester, room_id: str, invited: InvitedAddress) -> None:
    """No identity server can be reached."""
    raise NotFound("There is no identity server")
