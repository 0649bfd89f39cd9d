"""Sync: change queues, presence, ephemeral events, the engine, and its transports."""

from collections.abc import Collection, Sequence
from typing import Any

from homeserver.client_api.ephemeral.presence import PresenceApi
from homeserver.client_api.ephemeral.read_markers import ReadMarkersApi
from homeserver.client_api.ephemeral.receipts import ReceiptsApi
from homeserver.client_api.ephemeral.typing import TypingApi
from homeserver.client_api.sync.event_stream import EventStreamApi
from homeserver.client_api.sync.initial_sync import InitialSyncApi
from homeserver.client_api.sync.sync import SyncApi
from homeserver.config.settings import Settings
from homeserver.presence.presence_events import PresenceEvents
from homeserver.presence.remote_presence import RemotePresence
from homeserver.presence.tracker import PresenceTracker
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.ephemeral.read_markers import ReadMarkers
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.sync.engine import SyncEngine
from homeserver.sync.event_stream import EventStream
from homeserver.sync.sections.invitations import Invitations
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.preparation import EphemeralEvents
from homeserver.sync.sections.profile_sections import ProfileSections
from homeserver.sync.sections.room_sections import RoomSections
from homeserver.sync.sections.room_state import RoomStateSections
from homeserver.sync.sections.shared_sections import SharedSections
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sections.timelines import Timelines
from homeserver.sync.shared_updates import SharedUpdates
from homeserver.sync.sliding.room_reading import Sections
from homeserver.sync.snapshots import Snapshots
from homeserver.sync.sources import Sources
from homeserver.sync.streamed_events import StreamedEvents
from homeserver.sync.user_change_queues import UserChangeQueues
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.push import Push
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.sliding_sync import SlidingSyncParts
from homeserver.wiring.user_sections import UserSections


class Sync:
    """All objects of the area; `active_rooms` are those in which users may have been typing."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        rooms: RoomServices,
        encryption: Encryption,
        active_rooms: Collection[int] = (),
    ) -> None:
        self._settings = settings
        registry, user_rooms = room_core.registry, room_core.user_rooms
        receipts = self.receipts = Receipts(db, log, room_core.names)
        self.push = Push(
            reactor, settings, db, log, readers, account_core, room_core, receipts, rooms.reader
        )
        self.markers = ReadMarkers(registry, room_core.events, receipts, account_core.account_data)
        self.typing = TypingUsers(registry, log, reactor, log.position, active_rooms)
        self.tracker = PresenceTracker(
            settings.presence, db, log, room_core.names, user_rooms, reactor
        )
        self.remote_presence = RemotePresence(log, user_rooms, reactor)
        present = self.tracker, self.remote_presence
        self._presence = PresenceEvents(*present, db, log, room_core.names, registry, user_rooms)
        capacity = settings.limits.cached_users
        queues = self.change_queues = UserChangeQueues(user_rooms, log.seen, reactor, capacity)
        ephemeral: list[EphemeralEvents] = [self.typing, receipts]
        sticky = StickySections(room_core.sticky_events, registry, room_core.visibility)
        sections = _sections(db, room_core, rooms, ephemeral, self.push.unread_counts, sticky)
        sources = _sources(db, log, room_core, account_core, self._presence, ephemeral)
        users = UserSections(reactor, db, log, account_core, room_core, encryption, queues)
        self.engine = SyncEngine(
            sources,
            queues,
            sections.room_sections,
            sections.invitations,
            sections.lazy_members,
            users.devices,
            ProfileSections(users.profiles),
            sticky,
            SharedUpdates(sources, queues, sections.shared, users.devices),
            reactor,
        )
        subscriptions = self.push.thread_subscriptions
        own = users, receipts, self.typing, self.tracker, subscriptions, sticky
        self.sliding = SlidingSyncParts(
            reactor, settings, room_core, rooms, sources, sections, own, queues, self.engine
        )
        streamed = StreamedEvents(sources, room_core.visibility, self._presence)
        self._stream = EventStream(sources, self.engine, rooms.reader, streamed, reactor)
        self._snapshots = Snapshots(sources, rooms.reader, rooms.history, self._presence)
        self._local_server = room_core.local_server
        # A woken request reads all of these, so the change queues come last.
        of_users = *present, self._presence, users.profile_changes
        for reader in (receipts, self.typing, *of_users, queues, self._stream):
            log.subscribe(reader.apply)

    async def start(self) -> None:
        """Start background work."""
        await self.tracker.start()
        await self._presence.start()
        self.push.pushers.start()
        await self.sliding.connections.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self.push.pushers.stop()
        await self.sliding.connections.stop()
        self.typing.stop()
        self.tracker.stop()
        self.remote_presence.stop()

    def end_waits(self) -> None:
        """Respond to all long polls: the server is stopping."""
        self.engine.stop()
        self.sliding.sliding_sync.stop()
        self._stream.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        max_wait = self._settings.limits.max_sync_wait
        apis: list[Any] = [
            SyncApi(self.engine, self.tracker, max_wait),
            self.sliding.api,
            EventStreamApi(self._stream, self.tracker, self._local_server, max_wait),
            InitialSyncApi(self._snapshots, self.tracker),
            TypingApi(self.typing),
            ReceiptsApi(self.markers),
            ReadMarkersApi(self.markers),
            PresenceApi(self.tracker, self._presence),
        ]
        return [*self.push.routes(), *(route for api in apis for route in api.routes())]


def _sources(
    db: Database,
    log: Log,
    room_core: RoomCore,
    account_core: AccountCore,
    presence: PresenceEvents,
    ephemeral: Sequence[EphemeralEvents],
) -> Sources:
    return Sources(
        db,
        log,
        room_core.registry,
        room_core.user_rooms,
        account_core.account_data,
        account_core.filters,
        presence,
        ephemeral,
    )


def _sections(
    db: Database,
    room_core: RoomCore,
    rooms: RoomServices,
    ephemeral: Sequence[EphemeralEvents],
    unread: UnreadCounts,
    sticky: StickySections,
) -> Sections:
    registry, visibility = room_core.registry, room_core.visibility
    lazy_members = LazyMembers()
    timelines = Timelines(db, registry, visibility, room_core.local_server)
    states = RoomStateSections(db, registry, lazy_members)
    return Sections(
        timelines,
        states,
        lazy_members,
        RoomSections(
            timelines, states, ephemeral, unread, visibility, rooms.relations, sticky, registry
        ),
        SharedSections(timelines, lazy_members, ephemeral, unread, sticky, registry),
        Invitations(registry, visibility, room_core.out_of_room),
        unread,
        rooms.relations,
    )
