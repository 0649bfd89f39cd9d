"""Requests to other servers on behalf of local users."""

from typing import Any

import msgspec

from federation.api.third_party_invites import ThirdPartyExchange
from federation.receiving.event_fetcher import EventFetcher
from federation.receiving.pdu_checks import PduChecks
from federation.remote.backfill import Backfill
from federation.remote.membership_requests import MembershipRequests
from federation.remote.partial_state_resync import PartialStateResync
from federation.remote.remote_keys import RemoteKeyRequests
from federation.remote.remote_media import RemoteMedia
from federation.remote.remote_memberships import RemoteMemberships
from federation.remote.remote_queries import RemoteQueries
from federation.remote.remote_spaces import RemoteSpaces
from federation.remote.remote_timestamps import RemoteTimestamps
from homeserver.accounts.user_data.profiles import FindRemoteProfile
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.remote.remote_keys_port import RemoteKeysPort
from homeserver.media.remote.remote_media_port import RemoteMediaPort
from homeserver.rooms.discovery.aliases import FindRemoteAlias
from homeserver.rooms.discovery.directory import FindRemoteRooms
from homeserver.rooms.discovery.space_hierarchy import RemoteSpacesPort
from homeserver.rooms.history.history import BackfillPort
from homeserver.rooms.history.timestamps import RemoteTimestampsPort
from homeserver.rooms.inbound.partial_state_completion import PartialStateCompletion
from homeserver.rooms.membership.blocked_rooms import BlockedRooms
from homeserver.rooms.membership.remote_memberships import RemoteMembershipsPort
from homeserver.rooms.membership.third_party_invites import ThirdPartyExchangePort
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.wiring.federation.federation import Federation
from homeserver.wiring.room_core import RoomCore


class RemotePorts(msgspec.Struct, frozen=True):
    """Ports for requests to other servers, each with the type that its user defines."""

    memberships: RemoteMembershipsPort
    third_party_exchange: ThirdPartyExchangePort
    backfill: BackfillPort
    timestamps: RemoteTimestampsPort
    spaces: RemoteSpacesPort
    find_alias: FindRemoteAlias
    find_rooms: FindRemoteRooms
    find_profile: FindRemoteProfile
    keys: RemoteKeysPort
    media: RemoteMediaPort


class Remote:
    """The objects that send requests to other servers, and parts that receiving needs too."""

    def __init__(
        self, reactor: Any, db: Database, log: Log, federation: Federation, room_core: RoomCore
    ) -> None:
        registry, client = room_core.registry, federation.client
        self.pdu_checks = checks = PduChecks(federation.keyring)
        self.event_fetcher = fetcher = EventFetcher(client, checks, room_core.receiver)
        completion = PartialStateCompletion(room_core.storage, room_core.receiver, db)
        self.resync = PartialStateResync(registry, fetcher, completion, log, db, reactor)
        self._requests = MembershipRequests(client, room_core.local_server, checks)
        self.joining: KeyedLocks[str] = KeyedLocks()  # ids of rooms
        queries = RemoteQueries(client)
        self.ports = RemotePorts(
            memberships=RemoteMemberships(
                self._requests,
                room_core.remote_join,
                room_core.out_of_room,
                registry,
                fetcher,
                self.resync,
                self.joining,
                BlockedRooms(db, registry),
            ),
            third_party_exchange=ThirdPartyExchange(client),
            backfill=Backfill(registry, client, checks, fetcher),
            timestamps=RemoteTimestamps(registry, client, fetcher),
            spaces=RemoteSpaces(room_core.local_server.server_name, reactor, client),
            find_alias=queries.find_alias,
            find_rooms=queries.find_rooms,
            find_profile=queries.find_profile,
            keys=RemoteKeyRequests(client, reactor),
            media=RemoteMedia(client, federation.web),
        )

    def end_waits(self) -> None:
        """End joins in progress: the server is about to stop."""
        self._requests.end_waits()
