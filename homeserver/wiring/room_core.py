"""The core of rooms: their writers, storage and caches, without requests to other servers."""

from typing import Any

from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.config.sections.retention import RetentionSettings
from homeserver.config.settings import Settings
from homeserver.protocol.retention.lifetimes import LifetimeLimits
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.message_lifetimes import MessageLifetimes
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.inbound.branches import BranchSender
from homeserver.rooms.inbound.policy_servers import PolicySender, PolicyServers, PolicySignerPort
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.inbound.remote_join import RemoteJoin
from homeserver.rooms.inbound.sticky_rechecks import StickyRechecks
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.state.store import StateStore
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log


class RoomCore:
    """The objects of rooms on which requests to other servers and all services of rooms depend."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        log: Log,
        erased_users: ErasedUsers,
        policy_signer: PolicySignerPort,
    ) -> None:
        self.names = Names(db)
        limits = settings.limits
        self.events = EventStore(db, limits.cached_events)
        self.local_server = LocalServer(settings.server_name, key, reactor)
        states = StateStore(db, limits.cached_state_nodes)
        storage = self.storage = RoomStorage(log, self.names, states, self.events)
        self.policy_servers = PolicyServers(storage, policy_signer)
        self.receiver = PduReceiver(storage, StateResolver(storage), self.policy_servers)
        senders = PolicySender(self.policy_servers, self.receiver), BranchSender(self.receiver)
        self.registry = RoomRegistry(
            db, self.local_server, storage, senders, limits.cached_room_state
        )
        self.remote_join = RemoteJoin(log, states.threads, self.registry, self.receiver)
        self.out_of_room = OutOfRoomMemberships(db, log, self.names, self.events, self.registry)
        self.user_rooms = UserRooms(db, self.names, limits.cached_users)
        self.lifetimes = MessageLifetimes(self.registry, _lifetime_limits(settings.retention))
        self.visibility = Visibility(self.registry, self.events, erased_users, self.lifetimes)
        self.sticky_events = StickyEvents(db, self.local_server)
        self.sticky_rechecks = StickyRechecks(self.registry, self.sticky_events, self.receiver)
        # Later subscribers read rooms and must find them up to date, so these come first.
        for reader in (self.registry, self.user_rooms, self.sticky_events, self.sticky_rechecks):
            log.subscribe(reader.apply)


def _lifetime_limits(settings: RetentionSettings) -> LifetimeLimits | None:
    """The limits in ms; `None` if nothing expires."""
    if not settings.enabled:
        return None
    seconds = settings.default_lifetime, settings.min_lifetime, settings.max_lifetime
    return LifetimeLimits(*[None if each is None else each * 1000 for each in seconds])
