"""All objects of rooms on a fresh database, and a vocabulary to talk about them."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock

from homeserver.accounts.account_data import AccountData
from homeserver.accounts.caller import Caller
from homeserver.accounts.erasure import ErasedUsers
from homeserver.accounts.invite_permission import InvitePermission
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.protocol.signatures import SigningKey
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.creation import RoomCreation, RoomRequest
from homeserver.rooms.directory import RoomDirectory
from homeserver.rooms.distant_memberships import DistantMemberships
from homeserver.rooms.event_store import EventStore
from homeserver.rooms.history import History
from homeserver.rooms.membership import Memberships
from homeserver.rooms.membership_changes import MembershipChanges
from homeserver.rooms.notice_rooms import NoticeRooms
from homeserver.rooms.origin import Origin
from homeserver.rooms.reading import Reading
from homeserver.rooms.receiving import Receiving
from homeserver.rooms.relation_rules import RelationRules
from homeserver.rooms.resolution import StateResolver
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.sending import Sending
from homeserver.rooms.states import States
from homeserver.rooms.stores import Stores
from homeserver.rooms.summaries import Summaries
from homeserver.rooms.transactions import Transactions
from homeserver.rooms.user_rooms import UserRooms
from homeserver.rooms.visibility import Visibility
from homeserver.storage.names import Names
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from tests.support.postgres import DatabaseTestCase

SERVER = "example.org"
ALICE = Caller(f"@alice:{SERVER}", "DESK")
BOB = Caller(f"@bob:{SERVER}", "PHONE")
CAROL = Caller(f"@carol:{SERVER}", "TABLET")


class NoProfiles:
    """Users who say nothing of themselves."""

    async def member_fields(self, user_id: str) -> dict[str, str]:
        return {}


class RoomsTestCase(DatabaseTestCase):
    """A test with everything that rooms are made of. Time stands still until it is advanced."""

    cached_events = 10_000

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.build(0)

    def restart(self) -> None:
        """Make all objects anew, as at a start of the server: nothing is in memory."""
        self.build(self.log.position)

    def build(self, position: int) -> None:
        """Make all objects; the log goes on from a position."""
        db = self.db
        self.log = log = Log(reactor, db.write_batch, position)  # type: ignore[arg-type]
        self.names = Names(db)
        self.events = EventStore(db, self.cached_events)
        self.origin = Origin(SERVER, SigningKey.from_seed("1", bytes(32)), self.clock)
        stores = Stores(log, self.names, States(db, 10_000), self.events)
        self.rooms = rooms = Rooms(db, self.origin, stores)
        self.user_rooms = UserRooms(db, self.names, 100)
        self.erased = ErasedUsers(db)
        permission = InvitePermission(AccountData(db, stores.log), SERVER)
        self.visibility = Visibility(rooms, self.erased)
        self.aliases = Aliases(db, self.origin, rooms)
        self.creation = RoomCreation(rooms, self.origin, self.aliases, NoProfiles(), permission)
        self.receiving = Receiving(stores, StateResolver(stores))
        notices = NoticeRooms(rooms, None)
        self.memberships = Memberships(
            rooms,
            self.user_rooms,
            NoProfiles(),
            permission,
            self.receiving,
            notices,
            DistantMemberships(db, rooms),
        )
        self.sending = Sending(
            rooms,
            Transactions(db, self.names),
            self.aliases,
            RelationRules(db, rooms),
            MembershipChanges(rooms, self.memberships, RateLimits(self.clock, {})),
        )
        self.reading = Reading(db, rooms, self.user_rooms, self.visibility)
        self.history = History(db, rooms, self.reading, self.visibility)
        self.summaries = Summaries(db, rooms)
        self.directory = RoomDirectory(
            db, rooms, self.summaries, allow_publishing=True, without_login=False
        )
        for reader in (rooms, self.user_rooms, self.summaries, self.directory):
            log.subscribe(reader.apply)

    async def create_room(self, creator: Caller = ALICE, **request: Any) -> str:
        """A public room, unless the request says otherwise; gives its id."""
        wanted = {"version": DEFAULT_ROOM_VERSION, "preset": "public_chat", **request}
        return await self.creation.create(creator, RoomRequest(**wanted))

    async def say(self, room_id: str, text: str, by: Caller = ALICE) -> str:
        """Send a text message; gives its event id."""
        content = {"msgtype": "m.text", "body": text}
        return await self.sending.send_message(by, room_id, "m.room.message", content, text)
