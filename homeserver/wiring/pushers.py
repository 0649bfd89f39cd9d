"""Pushers: the decision, the queues, and what they send."""

import random
from typing import Any

from homeserver.config.settings import Settings
from homeserver.outbound.digest_mails import DigestMails
from homeserver.outbound.json_posts import JsonPosts
from homeserver.push.compiled_rules import UserRules
from homeserver.push.email.digest_contents import DigestContents
from homeserver.push.email.mail_digests import MailDigests
from homeserver.push.members import Members
from homeserver.push.push_actions import PushActions
from homeserver.push.pushers.badge_updates import BadgeUpdates
from homeserver.push.pushers.badges import Badges
from homeserver.push.pushers.decision import PushDecision
from homeserver.push.pushers.event_notifications import EventNotifications
from homeserver.push.pushers.invites import Invites
from homeserver.push.pushers.missed_pushes import FoundMissedPushes
from homeserver.push.pushers.push_items import PushItemSource
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.pusher_queues import PusherQueues
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.pushers.recipients import Recipients
from homeserver.push.pushers.room_titles import RoomTitles
from homeserver.push.recent_events import RecentEvents
from homeserver.push.rule_evaluation import RuleEvaluator
from homeserver.push.unread_counts import UnreadCounts
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.room_core import RoomCore

MAX_MAILED_AGE = 4 * 86_400.0  # seconds; a mail server may be down for a weekend


class PusherParts:
    """All objects of pushers."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        user_rules: UserRules,
        members: Members,
        evaluator: RuleEvaluator,
        push_actions: PushActions,
        unread_counts: UnreadCounts,
        recent_events: RecentEvents,
    ) -> None:
        registry, user_rooms = room_core.registry, room_core.user_rooms
        directory = account_core.pusher_directory
        self._posts = JsonPosts(reactor, settings.outbound_http, "push gateways")
        badges = Badges(db, registry, user_rooms, unread_counts)
        recipients = Recipients(directory, user_rooms, members, reactor)
        invites = Invites(members, user_rules, evaluator)
        finding = registry, user_rooms, members, push_actions, unread_counts, invites
        missed = FoundMissedPushes(log, reactor, recent_events, *finding)
        unread = FoundMissedPushes(log, reactor, recent_events, *finding, MAX_MAILED_AGE)
        titles = RoomTitles(registry)
        bodies = _bodies(room_core, unread_counts, push_actions, badges, titles)
        self.queues = PusherQueues(
            self._posts,
            directory,
            account_core.pushers,
            bodies,
            missed,
            badges,
            log,
            reactor,
            random.random,
            settings.push.several_devices,
        )
        self.digests = _digests(
            reactor, settings, db, log, account_core, room_core, unread_counts, titles, unread
        )
        self._badge_updates = BadgeUpdates(directory, badges, self.queues, reactor)
        self.decision = PushDecision(
            registry,
            directory,
            recipients,
            invites,
            evaluator,
            self._put,
            self._badge_updates.note_redaction,
        )
        # Before the reader: it decides with what they have.
        _subscribe(log, recipients, badges, self.queues, self._badge_updates)
        readers.add(
            "push",
            PushItemSource(db, registry, directory),
            self.decision.decide,
            self._first_unsent,
        )

    def _put(self, pusher: Pusher, push: QueuedPush) -> None:
        if pusher.is_pushing:
            self.queues.put(pusher, push)
        elif self.digests is not None:
            self.digests.put(pusher, push)

    def _first_unsent(self) -> int | None:
        pushed = self.queues.first_unsent()
        mailed = None if self.digests is None else self.digests.first_unsent()
        return min((each for each in (pushed, mailed) if each is not None), default=None)

    def start(self) -> None:
        """Continue with what a former process has left."""
        self.queues.start()
        if self.digests is not None:
            self.digests.start()

    async def stop(self) -> None:
        """Send nothing more."""
        self._badge_updates.stop()
        if self.digests is not None:
            await self.digests.stop()
        self.queues.stop()
        await self._posts.stop()


def _subscribe(log: Log, *readers: Any) -> None:
    for reader in readers:
        log.subscribe(reader.apply)


def _digests(
    reactor: Any,
    settings: Settings,
    db: Database,
    log: Log,
    account_core: AccountCore,
    room_core: RoomCore,
    unread_counts: UnreadCounts,
    titles: RoomTitles,
    unread: FoundMissedPushes,
) -> MailDigests | None:
    mailer, email = account_core.third_party.mailer, settings.email
    if mailer is None or not email.notifies:
        return None
    public_baseurl = settings.public_baseurl
    assert public_baseurl is not None, "as the settings have checked"
    digests = MailDigests(
        DigestMails(mailer, settings.server_name, public_baseurl, email.client_baseurl),
        DigestContents(room_core.registry, room_core.out_of_room, titles, reactor),
        account_core.pusher_directory,
        account_core.pushers,
        unread,
        unread_counts,
        room_core.registry,
        db,
        log,
        reactor,
        random.random,
        email.notification_delay,
    )
    log.subscribe(digests.apply)
    return digests


def _bodies(
    room_core: RoomCore,
    unread_counts: UnreadCounts,
    push_actions: PushActions,
    badges: Badges,
    titles: RoomTitles,
) -> EventNotifications:
    return EventNotifications(
        room_core.registry,
        room_core.user_rooms,
        room_core.out_of_room,
        unread_counts,
        push_actions,
        badges,
        titles,
    )
