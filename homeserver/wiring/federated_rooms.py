"""Rooms over federation: the events that come in and go out, and what users do on other servers."""

from typing import Any

from federation.api.auth_chains import AuthChains
from federation.api.events import EventsApi
from federation.api.hierarchy import HierarchyApi
from federation.api.invites import InvitesApi
from federation.api.membership import MembershipApi
from federation.api.third_party_invites import ThirdPartyExchange, ThirdPartyInvitesApi
from federation.api.transactions import TransactionsApi
from federation.receiving.edus import EduDispatcher
from federation.receiving.event_fetcher import EventFetcher
from federation.receiving.pdu_checks import PduChecks
from federation.receiving.pdu_queue import IncomingQueue
from federation.receiving.presence_edus import PresenceEdus
from federation.receiving.receipt_edus import ReceiptEdus
from federation.receiving.rescinded_invites import RescindedInvites
from federation.receiving.room_access import RoomAccess
from federation.receiving.typing_edus import TypingEdus
from federation.remote.backfill import Backfill
from federation.remote.membership_requests import MembershipRequests
from federation.remote.partial_state_resync import PartialStateResync
from federation.remote.policy_signer import PolicySigner
from federation.remote.remote_memberships import RemoteMemberships
from federation.remote.remote_queries import RemoteQueries
from federation.remote.remote_spaces import RemoteSpaces
from federation.remote.remote_timestamps import RemoteTimestamps
from federation.sending.room_servers import RoomServers
from federation.sending.sender import Sender
from federation.transport.client import FederationClient
from homeserver.protocol.event_types import PRESENCE, RECEIPT, TYPING
from homeserver.rooms.history.event_ancestors import EventAncestors
from homeserver.rooms.inbound.partial_state_completion import PartialStateCompletion
from homeserver.rooms.inbound.policy_servers import PolicyServers
from homeserver.rooms.membership.restricted_joins import RestrictedJoins
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.web.routes import Route
from homeserver.wiring.accounts import Accounts
from homeserver.wiring.federation import Federation
from homeserver.wiring.rooms import Rooms
from homeserver.wiring.sync import Sync


class FederatedRooms:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        db: Database,
        log: Log,
        federation: Federation,
        accounts: Accounts,
        rooms: Rooms,
        sync: Sync,
    ) -> None:
        registry, client = rooms.registry, federation.client
        checks = PduChecks(federation.keyring)
        access, chains = RoomAccess(registry), AuthChains(registry)
        missing = EventFetcher(client, checks, rooms.receiver)
        self._sender = Sender(
            client,
            federation.destinations,
            federation.permitted,
            registry,
            db,
            reactor,
        )
        self._typing = TypingEdus(registry, access, sync.typing, self._sender, reactor)
        receipts = ReceiptEdus(registry, access, sync.receipts, self._sender)
        withdrawals = RescindedInvites(reactor, client, checks, registry, rooms.out_of_room)
        inbox = IncomingQueue(registry, access, checks, missing, withdrawals)
        servers = RoomServers(registry, db)
        self._presence = PresenceEdus(
            registry, sync.tracker, sync.remote_presence, self._sender, servers, reactor
        )
        edus = EduDispatcher(
            {
                TYPING: self._typing.receive,
                RECEIPT: receipts.receive,
                PRESENCE: self._presence.receive,
            }
        )
        self._apis: list[Any] = [
            MembershipApi(
                registry, rooms.receiver, checks, access, chains, RestrictedJoins(registry)
            ),
            InvitesApi(registry, checks, access, rooms.out_of_room, accounts.invite_permission),
            TransactionsApi(reactor, inbox, edus),
            EventsApi(
                registry,
                access,
                chains,
                EventAncestors(registry),
                rooms.visibility,
                rooms.timestamps,
            ),
            HierarchyApi(rooms.space_rooms, access),
            ThirdPartyInvitesApi(db, rooms.local_server, access, rooms.third_party_invites),
        ]
        handshakes = self._requests = MembershipRequests(client, rooms.local_server, checks)
        completion = PartialStateCompletion(registry, rooms.receiver, db)
        self._completion = PartialStateResync(registry, missing, completion, db, reactor)
        rooms.memberships.remote = RemoteMemberships(
            handshakes, rooms.remote_join, rooms.out_of_room, registry, missing, self._completion
        )
        policy = PolicyServers(registry.stores, rooms.receiver, PolicySigner(client))
        registry.use_policy_servers(policy)
        rooms.receiver.policy = policy
        rooms.third_party_invites.exchange = ThirdPartyExchange(client)
        rooms.history.backfill = Backfill(registry, client, checks, missing)
        rooms.timestamps.remote = RemoteTimestamps(registry, client, missing)
        _ask_others(reactor, client, accounts, rooms)
        readers = self._sender, servers, self._typing, receipts, self._presence, self._completion
        for reader in readers:
            log.subscribe(reader.apply)

    async def start(self) -> None:
        """Tell other servers what they do not know, and go on asking them for members."""
        await self._sender.start()
        self._presence.start()
        await self._completion.start()

    def end_waits(self) -> None:
        """End joins that are under way: the server is about to stop."""
        self._requests.end_waits()

    async def stop(self) -> None:
        """Tell and ask nobody any more."""
        await self._completion.stop()
        self._typing.stop()
        self._presence.stop()
        await self._sender.stop()

    def routes(self) -> list[Route]:
        """The area's part of the Server-Server API."""
        return [route for api in self._apis for route in api.routes()]


def _ask_others(reactor: Any, client: FederationClient, accounts: Accounts, rooms: Rooms) -> None:
    """What users of this server see of others."""
    queries = RemoteQueries(client)
    accounts.profiles.find_remote = queries.find_profile
    rooms.aliases.find_remote = queries.find_alias
    rooms.directory.ask_remote = queries.find_rooms
    spaces = RemoteSpaces(rooms.local_server.server_name, reactor, client)
    rooms.hierarchy.remote = rooms.previews.remote = spaces
