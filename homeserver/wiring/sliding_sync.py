"""Sliding sync: its connections, lists and responses, on the parts that it shares with `/sync`."""

from typing import Any

from homeserver.client_api.sync.sliding_sync import SlidingSyncApi
from homeserver.config.settings import Settings
from homeserver.presence.tracker import PresenceTracker
from homeserver.push.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.sync.active_rooms import ActiveRooms
from homeserver.sync.engine import SyncEngine
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sliding.bump_stamps import BumpStamps
from homeserver.sync.sliding.connections import SlidingConnections
from homeserver.sync.sliding.extensions import Extensions
from homeserver.sync.sliding.listed_rooms import ListedRooms
from homeserver.sync.sliding.profile_extension import ProfileExtension
from homeserver.sync.sliding.responses import Responses
from homeserver.sync.sliding.room_filters import RoomFilters
from homeserver.sync.sliding.room_lists import RoomLists
from homeserver.sync.sliding.room_reading import Sections
from homeserver.sync.sliding.room_results import RoomResults
from homeserver.sync.sliding.shared_answers import SharedAnswers
from homeserver.sync.sliding.sliding_sync import SlidingSync
from homeserver.sync.sliding.sticky_extension import StickyExtension
from homeserver.sync.sources import Sources
from homeserver.sync.sync_points import SyncPoints
from homeserver.sync.user_change_queues import UserChangeQueues
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.user_sections import UserSections


class SlidingSyncParts:
    """All objects of the area; `extended` are what the extensions and the endpoint need."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        core: RoomCore,
        rooms: RoomServices,
        sources: Sources,
        sections: Sections,
        extended: tuple[
            UserSections,
            Receipts,
            TypingUsers,
            PresenceTracker,
            ThreadSubscriptions,
            StickySections,
        ],
        queues: UserChangeQueues,
        engine: SyncEngine,
    ) -> None:
        db, log, registry, names = sources.db, sources.log, core.registry, core.names
        listed = ListedRooms(db, rooms.summaries)
        filters = RoomFilters(sources.account_data, registry, sections.invitations)
        active = ActiveRooms(db, registry, sources.ephemeral)
        users, receipts, typing, presence, subscriptions, sticky = extended
        extensions = Extensions(
            users.devices, sources.account_data, receipts, typing, active, subscriptions
        )
        lists = RoomLists(registry, listed, filters, sources.account_data, core.visibility, reactor)
        responses = Responses(
            registry,
            SyncPoints(queues, sources.user_rooms, log),
            lists,
            filters,
            RoomResults(registry, sections, BumpStamps(db, names)),
            extensions,
            ProfileExtension(users.profiles, users.member_history, registry, active, reactor),
            StickyExtension(sticky, registry, sources.user_rooms),
            active,
            sections.room_sections.preparation,
            reactor,
        )
        self.connections = connections = SlidingConnections(db, reactor)
        self.sliding_sync = SlidingSync(
            engine,
            connections,
            responses,
            SharedAnswers(log, sources.user_rooms, lists, sections),
            extensions,
            queues,
            sections.lazy_members,
            reactor,
        )
        self.api = SlidingSyncApi(self.sliding_sync, presence, settings.limits.max_sync_wait)
        for reader in (listed, connections):
            log.subscribe(reader.apply)
