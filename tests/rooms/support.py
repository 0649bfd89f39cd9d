"""A test case with all objects of rooms on a fresh database, and shortcuts for users' actions."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.discovery.directory import RoomDirectory
from homeserver.rooms.discovery.network_lists import NetworkLists
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.history import History
from homeserver.rooms.history.message_lifetimes import MessageLifetimes
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.inbound.branches import BranchSender
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.lifecycle.creation import RoomCreation
from homeserver.rooms.lifecycle.first_events import RoomRequest
from homeserver.rooms.lifecycle.remote_invites import RemoteInvites
from homeserver.rooms.membership.membership_state_events import MembershipStateEvents
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.membership.server_notice_rooms import ServerNoticeRooms
from homeserver.rooms.resolution.resolver import StateResolver
from homeserver.rooms.room.draft_senders import NoPolicyServers
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.sending.relation_checks import RelationChecks
from homeserver.rooms.sending.sending import Sending
from homeserver.rooms.sending.transaction_ids import Transactions
from homeserver.rooms.state.store import StateStore
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.rooms.names import Names
from homeserver.streams.counters import Counters
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from tests.support.logs import free_counters, transcoding
from tests.support.no_federation import (
    NoBackfill,
    NoMemberships,
    find_no_alias,
    find_no_rooms,
    invite_no_address,
)
from tests.support.postgres import DatabaseTestCase

SERVER = "example.org"
ALICE = Requester(f"@alice:{SERVER}", "DESK")
BOB = Requester(f"@bob:{SERVER}", "PHONE")
CAROL = Requester(f"@carol:{SERVER}", "TABLET")


class NoProfiles:
    """Users without profile fields."""

    async def member_fields(self, user_id: str) -> dict[str, str]:
        return {}


class RoomsTestCase(DatabaseTestCase):
    """A test with all objects of rooms. Time stands still until the test advances it."""

    cached_events = 10_000
    transcodes = False  # whether subscribers of the log see decoded entries

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.build(free_counters(reactor))  # type: ignore[arg-type]

    def restart(self) -> None:
        """Construct all objects again, as at a start of the server: the caches are empty."""
        self.build(self.counters)

    def build(self, counters: Counters) -> None:
        """Construct all objects; the log continues these counters."""
        db, self.counters = self.db, counters
        transcode = transcoding(is_wanted=self.transcodes)
        self.log = log = Log(reactor, db.write_batch, counters, transcode=transcode)  # type: ignore[arg-type]
        self.names = Names(db)
        self.events = EventStore(db, self.cached_events)
        self.origin = LocalServer(SERVER, SigningKey.from_seed("1", bytes(32)), self.clock)
        stores = self.storage = RoomStorage(log, self.names, StateStore(db, 10_000), self.events)
        self.receiving = PduReceiver(stores, StateResolver(stores), NoPolicyServers())
        senders = (BranchSender(self.receiving),)
        self.rooms = rooms = RoomRegistry(db, self.origin, stores, senders)
        self.user_rooms = UserRooms(db, self.names, 100)
        self.erased = ErasedUsers(db, log)
        permission = InvitePermission(AccountData(db, stores.log), SERVER)
        lifetimes = MessageLifetimes(rooms, None)
        self.visibility = Visibility(rooms, self.events, self.erased, lifetimes)
        self.aliases = Aliases(
            db, self.names, self.origin, rooms, find_no_alias, Appservices(), self.log
        )
        notices = ServerNoticeRooms(rooms, None)
        self.memberships = Memberships(
            log,
            self.names,
            rooms,
            self.user_rooms,
            NoProfiles(),
            permission,
            self.receiving,
            NoPolicyServers(),
            notices,
            OutOfRoomMemberships(db, log, self.names, self.events, rooms),
            NoMemberships(),
        )
        self.remote_invites = RemoteInvites(
            db, self.clock, rooms, self.memberships.invite, invite_no_address
        )
        self.creation = RoomCreation(
            log,
            self.names,
            rooms,
            self.origin,
            self.aliases,
            NoProfiles(),
            permission,
            self.remote_invites,
        )
        self.sending = Sending(
            rooms,
            Transactions(db, self.names),
            self.aliases,
            RelationChecks(db, self.names, rooms),
            MembershipStateEvents(rooms, self.memberships, RateLimits(self.clock, {})),
            StickyEvents(db, self.origin),
        )
        self.reading = RoomReader(db, self.names, rooms, self.user_rooms, self.visibility)
        self.history = History(db, rooms, self.reading, self.visibility, NoBackfill())
        self.summaries = RoomSummaries(db, rooms)
        self.directory = RoomDirectory(
            db,
            log,
            rooms,
            self.summaries,
            find_no_rooms,
            NetworkLists(db, log, rooms, Appservices()),
            allow_publishing=True,
            without_login=False,
        )
        for reader in (rooms, self.user_rooms, self.erased, self.summaries, self.directory):
            log.subscribe(reader.apply)

    async def create_room(self, creator: Requester = ALICE, **request: Any) -> str:
        """A public room, unless the request says otherwise; gives its id."""
        wanted = {"version": DEFAULT_ROOM_VERSION, "preset": "public_chat", **request}
        return await self.creation.create(creator, RoomRequest(**wanted))

    async def say(self, room_id: str, text: str, by: Requester = ALICE) -> str:
        """Send a text message; gives its event id."""
        content = {"msgtype": "m.text", "body": text}
        return await self.sending.send_message(by, room_id, "m.room.message", content, text)
