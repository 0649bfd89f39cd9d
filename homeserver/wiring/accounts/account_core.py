"""The core of accounts: sessions and user data. All other areas build upon it."""

from functools import partial
from typing import Any

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import NO_PROVISIONING, Provisioning
from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.last_seen import LastSeen
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.filters import Filters
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.accounts.user_data.profiles import LocalProfiles
from homeserver.config.settings import Settings
from homeserver.outbound.http_client import OutboundClient
from homeserver.protocol.event_types import PUSH_RULES
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.local_notification_settings import LocalNotificationSettings
from homeserver.push.pushers.pushers import Pushers
from homeserver.push.rules import PushRules, default_push_rules
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.web.html import Pages
from homeserver.wiring.accounts.third_party_ids import ThirdParty


class AccountCore:
    """The objects of accounts that do not depend on rooms."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        log: Log,
        appservices: Appservices,
        provisioning: Provisioning = NO_PROVISIONING,
    ) -> None:
        self.provisioning = provisioning
        self.signing_key = key
        self.appservices = appservices
        self.pages = Pages(settings.server_name)
        self.last_seen = LastSeen(db, reactor)
        self.access_tokens = AccessTokens(db, reactor, self.last_seen, appservices)
        self.devices = Devices(db, log, self.last_seen)
        self.sessions = LoginSessions(
            db, reactor, settings.tokens, self.devices, self.access_tokens
        )
        self.local_profiles = LocalProfiles(db, log)
        has_thread_rules = settings.threads.subscriptions
        default_rules = partial(default_push_rules, has_thread_rules=has_thread_rules)
        self.account_data = AccountData(db, log, {PUSH_RULES: default_rules})
        self.push_rules = PushRules(self.account_data, has_thread_rules=has_thread_rules)
        self.pusher_directory = PusherDirectory(db, reactor)
        self.pushers = Pushers(db, log, reactor, self.pusher_directory)
        self.devices.accompany(self.pushers)
        self.devices.accompany(LocalNotificationSettings(log, self.account_data))
        self.invite_permission = InvitePermission(
            self.account_data, settings.server_name, provisioning.user
        )
        self.filters = Filters(db)
        self.erased_users = ErasedUsers(db, log)
        self.outbound = OutboundClient(reactor, settings.outbound_http)
        self.third_party = ThirdParty(
            reactor, settings, key, db, self.outbound, self.pages, self.pushers.address_removed
        )
        for reader in (
            self.access_tokens,
            self.local_profiles,
            self.account_data,
            self.erased_users,
            self.pusher_directory,
        ):
            log.subscribe(reader.apply)

    async def load(self) -> None:
        """Read what must be in memory before the first request."""
        await self.erased_users.load()
        await self.pusher_directory.load()

    def start(self) -> None:
        """Start background work."""
        self.last_seen.start()

    async def stop(self) -> None:
        """Stop background work, and write what is not stored yet."""
        await self.last_seen.stop()
        await self.third_party.stop()
        await self.outbound.stop()
