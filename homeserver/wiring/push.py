"""Push: push rules, notifications, and unread counts."""

from typing import Any

from homeserver.client_api.push.notifications import NotificationsApi
from homeserver.client_api.push.push_rules import PushRulesApi
from homeserver.client_api.push.pushers import PushersApi
from homeserver.client_api.push.thread_subscriptions import ThreadSubscriptionsApi
from homeserver.client_api.push.unsubscribe import UnsubscribeApi
from homeserver.config.settings import Settings
from homeserver.push.compiled_rules import UserRules
from homeserver.push.members import Members
from homeserver.push.mentions import Mentions, has_mentions
from homeserver.push.notifications import Notifications
from homeserver.push.push_actions import PushActions
from homeserver.push.recent_events import RecentEvents
from homeserver.push.rule_evaluation import RuleEvaluator
from homeserver.push.thread_subscribers import ThreadSubscribers
from homeserver.push.thread_subscriptions import ThreadSubscriptions
from homeserver.push.threads import Threads
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.timeline_source import TimelineSource
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.pushers import PusherParts
from homeserver.wiring.room_core import RoomCore


class Push:
    """All objects of the area that others use."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        receipts: Receipts,
        reader: RoomReader,
    ) -> None:
        registry = room_core.registry
        self._local_server = room_core.local_server
        self._rules = account_core.push_rules
        self._has_thread_subscriptions = settings.threads.subscriptions
        self._account_pushers = account_core.pushers
        self._pages = account_core.pages
        user_rules = UserRules(self._rules)
        members = Members(room_core.events, user_rules, account_core.account_data)
        threads = Threads(room_core.events)
        subscribers = ThreadSubscribers(db, threads)
        self.thread_subscriptions = ThreadSubscriptions(db, log, room_core.names, reader, threads)
        evaluator = RuleEvaluator(room_core.visibility, threads, subscribers)
        notices = PushActions(evaluator, threads)
        mentions = Mentions(db, registry)
        mentioning = TimelineSource(db, registry, has_mentions, word="m.mentions")
        readers.add("mentions", mentioning, mentions.rows_of)
        self.unread_counts = UnreadCounts(db, registry, receipts, members, notices, mentions)
        recent = RecentEvents(db, registry, room_core.user_rooms, room_core.visibility)
        self._notifications = Notifications(
            recent,
            members,
            notices,
            self.unread_counts,
        )
        for follower in (user_rules, subscribers, self.thread_subscriptions, self.unread_counts):
            log.subscribe(follower.apply)
        self.pushers = PusherParts(
            reactor,
            settings,
            db,
            log,
            readers,
            account_core,
            room_core,
            user_rules,
            members,
            evaluator,
            notices,
            self.unread_counts,
            recent,
        )

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        apis: list[Any] = [
            PushRulesApi(self._rules),
            PushersApi(self._account_pushers, has_emails=self.pushers.digests is not None),
            UnsubscribeApi(self._account_pushers, self._pages),
            NotificationsApi(self._notifications, self._local_server),
            ThreadSubscriptionsApi(
                self.thread_subscriptions, is_enabled=self._has_thread_subscriptions
            ),
        ]
        return [route for api in apis for route in api.routes()]
