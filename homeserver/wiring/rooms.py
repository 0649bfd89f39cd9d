"""Rooms: their writers, what readers see of them, and their part of the client API."""

from typing import Any

from homeserver.accounts.user_data.direct_chats import DirectChats
from homeserver.accounts.user_data.tags import Tags
from homeserver.client_api.rooms.create_room import CreateRoomApi
from homeserver.client_api.rooms.mutual_rooms import MutualRoomsApi
from homeserver.client_api.rooms.relations import RelationsApi
from homeserver.client_api.rooms.room_aliases import RoomAliasesApi
from homeserver.client_api.rooms.room_directory import RoomDirectoryApi
from homeserver.client_api.rooms.room_history import RoomHistoryApi
from homeserver.client_api.rooms.room_members import RoomMembersApi
from homeserver.client_api.rooms.room_membership import RoomMembershipApi
from homeserver.client_api.rooms.room_state import RoomStateApi
from homeserver.client_api.rooms.room_summary import RoomSummaryApi
from homeserver.client_api.rooms.room_upgrade import RoomUpgradeApi
from homeserver.client_api.rooms.sending import SendingApi
from homeserver.client_api.rooms.space_hierarchy import SpaceHierarchyApi
from homeserver.client_api.rooms.timestamp import TimestampApi
from homeserver.client_api.server.reports import ReportsApi
from homeserver.client_api.server.server_notices import ServerNoticesApi
from homeserver.config.settings import Settings
from homeserver.moderation.reports import Reports
from homeserver.moderation.server_notices import ServerNotices
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.discovery.directory import RoomDirectory
from homeserver.rooms.discovery.mutual_rooms import MutualRooms
from homeserver.rooms.discovery.room_previews import RoomPreviews
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.rooms.discovery.space_children import SpaceChildRooms
from homeserver.rooms.discovery.space_hierarchy import SpaceHierarchy
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.history import History
from homeserver.rooms.history.relation_pages import RelationPages
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.timestamps import Timestamps
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.inbound.branches import BranchSender
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.inbound.remote_join import RemoteJoin
from homeserver.rooms.lifecycle.creation import RoomCreation
from homeserver.rooms.lifecycle.upgrade import RoomUpgrades
from homeserver.rooms.lifecycle.upgrade_migration import UpgradeMigration
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.membership.guest_access import GuestAccess
from homeserver.rooms.membership.membership_state_events import MembershipStateEvents
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.membership.profile_propagation import ProfilePropagation
from homeserver.rooms.membership.server_notice_rooms import ServerNoticeRooms
from homeserver.rooms.membership.third_party_invites import ThirdPartyInvites
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.sending.relation_checks import RelationRules
from homeserver.rooms.sending.sending import Sending
from homeserver.rooms.sending.transaction_ids import Transactions
from homeserver.rooms.state.garbage_collection import NightlyCollection, StateNodeCollector
from homeserver.rooms.state.store import StateStore
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts import Accounts

CACHED_EVENTS = 40_000
CACHED_STATE_NODES = 40_000
CACHED_USERS = 20_000


class Rooms:
    """All objects of the area that others use."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        log: Log,
        accounts: Accounts,
        rate_limits: RateLimits,
    ) -> None:
        self.names = Names(db)
        self.events = EventStore(db, CACHED_EVENTS)
        self.local_server = LocalServer(settings.server_name, key, reactor)
        stores = RoomStorage(log, self.names, StateStore(db, CACHED_STATE_NODES), self.events)
        self.registry = RoomRegistry(db, self.local_server, stores)
        self.receiver = self._receiving(stores)
        self.remote_join = RemoteJoin(self.registry, self.receiver)
        self.out_of_room = OutOfRoomMemberships(db, self.registry)
        self.user_rooms = UserRooms(db, self.names, CACHED_USERS)
        self.visibility = Visibility(self.registry, accounts.erased_users)
        self.aliases = Aliases(db, self.local_server, self.registry)
        self.creation = RoomCreation(
            self.registry,
            self.local_server,
            self.aliases,
            accounts.profiles,
            accounts.invite_permission,
        )
        notice_rooms = ServerNoticeRooms(self.registry, accounts.notices_account.user_id)
        self.memberships = Memberships(
            self.registry,
            self.user_rooms,
            accounts.profiles,
            accounts.invite_permission,
            self.receiver,
            notice_rooms,
            self.out_of_room,
        )
        self.creation.invite_remote = self.memberships.invite
        self.third_party_invites = self._third_party_invites(accounts)
        self.transactions = Transactions(db, self.names)
        self.sending = self._sending(db, rate_limits)
        self.reader = reading = RoomReader(db, self.registry, self.user_rooms, self.visibility)
        self.relations = BundledAggregations(db, self.registry, reading, self.visibility)
        self._related_events = RelationPages(
            db, self.registry, reading, self.visibility, self.relations
        )
        self.timestamps = Timestamps(db, self.registry, reading, self.visibility)
        self.history = History(db, self.registry, reading, self.visibility)
        self.state_sweep = StateNodeCollector(db)
        self._nightly_sweep = NightlyCollection(
            self.state_sweep, reactor, settings.database.maintenance_hour
        )
        self._describe_rooms(reactor, settings, db)
        self._upgrades = RoomUpgrades(self.registry, accounts.profiles)
        self._reports = Reports(db, reactor, settings.server_name, self.registry, reading)
        self._notices = self._server_notices(settings, accounts)
        self._settings = settings
        self._account_data = accounts.account_data
        self._follow_accounts(reactor, db, accounts)
        self._read(log)

    def _receiving(self, stores: RoomStorage) -> PduReceiver:
        receiving = PduReceiver(stores, StateResolver(stores))
        self.registry.send_branches_with(BranchSender(receiving))
        return receiving

    def _read(self, log: Log) -> None:
        # Whoever reads rooms must find them up to date, so these are the first readers of the log.
        for reader in (
            self.registry.apply,
            self.user_rooms.apply,
            self.summaries.apply,
            self.relations.apply,
            self.directory.apply,
            self._guest_access.apply,
            self.upgrade_migration.apply,
        ):
            log.subscribe(reader)

    def _describe_rooms(self, reactor: Any, settings: Settings, db: Database) -> None:
        """What people learn of rooms that they are not in."""
        self.summaries = RoomSummaries(db, self.registry)
        self.space_rooms = SpaceChildRooms(
            self.registry, self.summaries, self.user_rooms, self.out_of_room
        )
        self.hierarchy = SpaceHierarchy(reactor, self.space_rooms)
        self.previews = RoomPreviews(self.summaries, self.space_rooms)
        self.directory = RoomDirectory(
            db,
            self.registry,
            self.summaries,
            allow_publishing=settings.room_directory.allow_publishing,
            without_login=settings.room_directory.public_without_login,
        )

    def _third_party_invites(self, accounts: Accounts) -> ThirdPartyInvites:
        return ThirdPartyInvites(
            self.registry,
            self.memberships,
            accounts.third_party.invitations,
            accounts.third_party.bindings.check_server,
        )

    def _sending(self, db: Database, rate_limits: RateLimits) -> Sending:
        return Sending(
            self.registry,
            self.transactions,
            self.aliases,
            RelationRules(db, self.registry),
            MembershipStateEvents(self.registry, self.memberships, rate_limits),
        )

    def _server_notices(self, settings: Settings, accounts: Accounts) -> ServerNotices:
        return ServerNotices(
            accounts.notices_account,
            accounts.account_data,
            self.registry,
            self.creation,
            self.memberships,
            self.transactions,
            version=settings.rooms.default_version,
            name=settings.server_notices.room_name,
        )

    def _follow_accounts(self, reactor: Any, db: Database, accounts: Accounts) -> None:
        """What happens in rooms when accounts change, or users move from one room to the next."""
        departures = ForcedLeaves(self.registry, self.user_rooms, self.memberships)
        self._guest_access = GuestAccess(db, reactor, self.registry, departures)
        self.upgrade_migration = UpgradeMigration(self.registry)
        tags, direct_chats = Tags(accounts.account_data), DirectChats(accounts.account_data)
        self.upgrade_migration.carry_over += [tags.migrate, direct_chats.migrate]
        self.upgrade_migration.move += [self.aliases.migrate, self.directory.migrate]
        self._propagation = ProfilePropagation(self.registry, self.user_rooms, accounts.profiles)
        accounts.profiles.on_profile_changed.append(self._propagation.profile_changed)
        accounts.deactivation.on_deactivated.append(departures.deactivated)

    def start(self) -> None:
        """Begin the work that goes on beside requests."""
        self._nightly_sweep.start()

    async def stop(self) -> None:
        """End the work that goes on beside requests."""
        await self._nightly_sweep.stop()
        await self._propagation.stop()
        await self._guest_access.stop()
        await self.upgrade_migration.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        default_version = self._settings.rooms.default_version
        apis: list[Any] = [
            CreateRoomApi(self.creation, self.third_party_invites, self.directory, default_version),
            RoomMembershipApi(
                self.memberships, self.third_party_invites, self.aliases, self.reader
            ),
            SendingApi(self.sending),
            RoomStateApi(self.sending, self.reader, self.local_server),
            RoomHistoryApi(
                self.history, self.reader, self.relations, self._account_data, self.local_server
            ),
            RelationsApi(self._related_events, self._account_data, self.local_server),
            TimestampApi(self.timestamps),
            MutualRoomsApi(MutualRooms(self.names, self.user_rooms)),
            RoomMembersApi(self.reader, self.local_server),
            RoomUpgradeApi(self._upgrades),
            RoomAliasesApi(self.aliases),
            ReportsApi(self._reports),
            ServerNoticesApi(self._notices),
            RoomDirectoryApi(self.directory),
            RoomSummaryApi(self.previews, self.aliases),
            SpaceHierarchyApi(self.hierarchy),
        ]
        return [route for api in apis for route in api.routes()]
