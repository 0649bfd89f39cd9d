"""Rooms: the services that users need, and the area's part of the client API."""

from typing import Any

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.registration.notices_account import notices_user_id
from homeserver.accounts.user_data.direct_chats import DirectChats
from homeserver.accounts.user_data.tags import Tags
from homeserver.client_api.calls.delayed_events import DelayedEventsApi
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
from homeserver.client_api.rooms.threads import ThreadsApi
from homeserver.client_api.rooms.timestamp import TimestampApi
from homeserver.config.settings import Settings
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.discovery.directory import RoomDirectory
from homeserver.rooms.discovery.mutual_rooms import MutualRooms
from homeserver.rooms.discovery.network_lists import NetworkLists
from homeserver.rooms.discovery.room_previews import RoomPreviews
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.rooms.discovery.space_children import SpaceChildRooms
from homeserver.rooms.discovery.space_hierarchy import SpaceHierarchy
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.history import History
from homeserver.rooms.history.relation_pages import RelationPages
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.thread_list import ThreadList
from homeserver.rooms.history.timestamps import Timestamps
from homeserver.rooms.lifecycle.creation import RoomCreation
from homeserver.rooms.lifecycle.remote_invites import RemoteInvites
from homeserver.rooms.lifecycle.upgrade import RoomUpgrades
from homeserver.rooms.lifecycle.upgrade_migration import LocalJoins, UpgradeMigration
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.membership.guest_access import GuestAccess, GuestAccessSource
from homeserver.rooms.membership.membership_state_events import MembershipStateEvents
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.profile_propagation import (
    MemberProfileChanges,
    ProfilePropagation,
)
from homeserver.rooms.membership.server_notice_rooms import ServerNoticeRooms
from homeserver.rooms.membership.third_party_invites import ThirdPartyInvites
from homeserver.rooms.sending.delayed_events import DelayedEvents
from homeserver.rooms.sending.delayed_senders import DelayedSender
from homeserver.rooms.sending.due_events import DueEvents
from homeserver.rooms.sending.related_redactions import RelatedRedactions
from homeserver.rooms.sending.relation_checks import RelationChecks
from homeserver.rooms.sending.sending import Sending
from homeserver.rooms.sending.transaction_ids import Transactions
from homeserver.rooms.state.garbage_collection import NightlyCollection, StateNodeCollector
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.federation.remote import RemotePorts
from homeserver.wiring.room_core import RoomCore


class RoomServices:
    """All objects of the area that others use, beside those of the room_core."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        remote: RemotePorts,
        rate_limits: RateLimits,
    ) -> None:
        self._settings = settings
        self._core = room_core
        self._account_data = account_core.account_data
        registry = room_core.registry
        names = room_core.names
        self.aliases = Aliases(
            db,
            names,
            room_core.local_server,
            registry,
            remote.find_alias,
            account_core.appservices,
            log,
            account_core.provisioning.alias,
        )
        self.memberships = self._memberships(settings, log, account_core, room_core, remote)
        self.third_party_invites = ThirdPartyInvites(
            registry,
            self.memberships,
            account_core.third_party.invitations,
            account_core.third_party.bindings.check_server,
            remote.third_party_exchange,
        )
        self._make_creation(reactor, db, log, account_core, room_core)
        self._upgrades = RoomUpgrades(log, names, registry, account_core.local_profiles)
        self._make_sending(reactor, db, room_core, rate_limits)
        self._read_rooms(db, room_core, remote)
        self._describe_rooms(
            reactor, settings, db, log, account_core.appservices, room_core, remote
        )
        self._follow_users(db, readers, account_core, room_core)
        self.state_node_collector = StateNodeCollector(db)
        self._nightly_collection = NightlyCollection(
            self.state_node_collector, reactor, settings.database.maintenance_hour
        )
        for reader in (
            self.summaries.apply,
            self.relations.apply,
            self.directory.apply,
        ):
            log.subscribe(reader)

    def _make_creation(
        self, reactor: Any, db: Database, log: Log, account_core: AccountCore, room_core: RoomCore
    ) -> None:
        """Make the object that creates rooms, and the one that sends their invites."""
        names, registry = room_core.names, room_core.registry
        self._remote_invites = RemoteInvites(
            db, reactor, registry, self.memberships.invite, self.third_party_invites.invite
        )
        self.creation = RoomCreation(
            log,
            names,
            registry,
            room_core.local_server,
            self.aliases,
            account_core.local_profiles,
            account_core.invite_permission,
            self._remote_invites,
        )

    def _make_sending(
        self, reactor: Any, db: Database, room_core: RoomCore, rate_limits: RateLimits
    ) -> None:
        """Make the objects that send events of users, now and later."""
        names, registry = room_core.names, room_core.registry
        self.transactions = Transactions(db, names)
        self.sending = Sending(
            registry,
            self.transactions,
            self.aliases,
            RelationChecks(db, names, registry),
            MembershipStateEvents(registry, self.memberships, rate_limits),
            room_core.sticky_events,
        )
        self._related_redactions = RelatedRedactions(db, registry)
        sender = DelayedSender(db, self.sending, self.transactions, rate_limits)
        self._due_events = DueEvents(db, reactor, sender)
        self.delayed_events = DelayedEvents(
            db, reactor, self._settings.delayed_events, sender, self._due_events
        )

    def _memberships(
        self,
        settings: Settings,
        log: Log,
        account_core: AccountCore,
        room_core: RoomCore,
        remote: RemotePorts,
    ) -> Memberships:
        notices_user = notices_user_id(settings.server_notices, settings.server_name)
        return Memberships(
            log,
            room_core.names,
            room_core.registry,
            room_core.user_rooms,
            account_core.local_profiles,
            account_core.invite_permission,
            room_core.receiver,
            room_core.policy_servers,
            ServerNoticeRooms(room_core.registry, notices_user),
            room_core.out_of_room,
            remote.memberships,
        )

    def _read_rooms(self, db: Database, room_core: RoomCore, remote: RemotePorts) -> None:
        """Make the objects that read rooms for users who are or were in them."""
        names, registry, visibility = room_core.names, room_core.registry, room_core.visibility
        self.reader = reader = RoomReader(db, names, registry, room_core.user_rooms, visibility)
        self.relations = BundledAggregations(db, names, registry, reader, visibility)
        self._relation_pages = RelationPages(
            db, names, registry, reader, visibility, self.relations
        )
        self._threads = ThreadList(db, registry, reader, visibility, self.relations)
        self.timestamps = Timestamps(db, registry, reader, visibility, remote.timestamps)
        self.history = History(db, registry, reader, visibility, remote.backfill)

    def _describe_rooms(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        appservices: Appservices,
        room_core: RoomCore,
        remote: RemotePorts,
    ) -> None:
        """Make the objects that describe rooms to users who are not in them."""
        self.summaries = RoomSummaries(db, room_core.registry)
        self.space_rooms = SpaceChildRooms(
            room_core.registry, self.summaries, room_core.user_rooms, room_core.out_of_room
        )
        self._hierarchy = SpaceHierarchy(reactor, self.space_rooms, remote.spaces)
        self._previews = RoomPreviews(self.summaries, self.space_rooms, remote.spaces)
        self._network_lists = NetworkLists(db, log, room_core.registry, appservices)
        self.directory = RoomDirectory(
            db,
            log,
            room_core.registry,
            self.summaries,
            remote.find_rooms,
            self._network_lists,
            allow_publishing=settings.room_directory.allow_publishing,
            without_login=settings.room_directory.public_without_login,
        )

    def _follow_users(
        self,
        db: Database,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
    ) -> None:
        """Make the objects that update rooms after changes of accounts, and upgrades."""
        registry, user_rooms = room_core.registry, room_core.user_rooms
        self.forced_leaves = ForcedLeaves(registry, user_rooms, self.memberships)
        guest_access = GuestAccess(db, registry, self.forced_leaves)
        readers.add_concurrent(
            "guest_access", GuestAccessSource(db), guest_access.remove_guests, slots=4
        )
        self.profile_propagation = ProfilePropagation(
            registry, user_rooms, account_core.local_profiles, readers.check_running
        )
        readers.add_concurrent(
            "profile_propagation",
            MemberProfileChanges(db),
            self.profile_propagation.renew_all,
            slots=8,
        )
        upgrade_migration = UpgradeMigration(
            registry,
            carry_over=[
                Tags(account_core.account_data).migrate,
                DirectChats(account_core.account_data).migrate,
                account_core.push_rules.migrate,
            ],
            move=[self.aliases.migrate, self.directory.migrate],
        )
        readers.add("upgrade_migration", LocalJoins(db, registry), upgrade_migration.migrate)

    def start(self) -> None:
        """Start background work."""
        self._nightly_collection.start()
        self._remote_invites.start()
        self._due_events.start()
        self._core.sticky_events.start()
        self._core.sticky_rechecks.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self._core.sticky_rechecks.stop()
        await self._core.sticky_events.stop()
        await self._due_events.stop()
        await self._remote_invites.stop()
        await self._nightly_collection.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        default_version = self._settings.rooms.default_version
        local_server = self._core.local_server
        apis: list[Any] = [
            CreateRoomApi(self.creation, self.third_party_invites, self.directory, default_version),
            RoomMembershipApi(
                self.memberships, self.third_party_invites, self.aliases, self.reader
            ),
            SendingApi(self.sending, self._related_redactions, self.delayed_events),
            RoomStateApi(self.sending, self.reader, local_server, self.delayed_events),
            DelayedEventsApi(self.delayed_events),
            RoomHistoryApi(
                self.history, self.reader, self.relations, self._account_data, local_server
            ),
            RelationsApi(self._relation_pages, self._account_data, local_server),
            ThreadsApi(self._threads, self._account_data, local_server),
            TimestampApi(self.timestamps),
            MutualRoomsApi(MutualRooms(self._core.names, self._core.user_rooms)),
            RoomMembersApi(self.reader, local_server),
            RoomUpgradeApi(self._upgrades),
            RoomAliasesApi(self.aliases),
            RoomDirectoryApi(self.directory, self._network_lists),
            RoomSummaryApi(self._previews, self.aliases),
            SpaceHierarchyApi(self._hierarchy),
        ]
        return [route for api in apis for route in api.routes()]
