"""The parts of one homeserver, made in the order in which they need each other.

First the parts that need no other (accounts, federation, the core of rooms), then the requests to
other servers, then the services for users, then sync and the federation of rooms, and last the
listeners.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from federation.remote.policy_signer import PolicySigner
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.background_jobs.job_runner import JobRunner
from homeserver.background_jobs.jobs import Jobs
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_signing_keys
from homeserver.observability.caches import caches_and_tasks_of
from homeserver.observability.metrics import Metrics
from homeserver.protocol.proposals.unstable_names import DELAYED_EVENTS, QR_LOGIN, STREAM, THREADS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.health import DatabaseHealth
from homeserver.streams.log import Log
from homeserver.web.listeners import Listeners
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.web.shutdown import Shutdown
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.accounts.account_services import AccountServices
from homeserver.wiring.appservices import AppserviceQueries, AppserviceServices
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.federation.federated_rooms import FederatedRooms
from homeserver.wiring.federation.federation import Federation
from homeserver.wiring.federation.remote import Remote
from homeserver.wiring.http import Http
from homeserver.wiring.maintenance.retention import Retention
from homeserver.wiring.media.media_repository import MediaRepository
from homeserver.wiring.media.url_previews import UrlPreviewServices
from homeserver.wiring.metrics import (
    watch,
    watch_federation,
    watch_jobs,
    watch_mails,
    watch_periodic_tasks,
    watch_push,
)
from homeserver.wiring.moderation import Moderation
from homeserver.wiring.rate_limits import rate_limits_of
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.search import Search
from homeserver.wiring.stream import Stream
from homeserver.wiring.sync import Sync
from homeserver.wiring.user_directory import UserDirectory

if TYPE_CHECKING:
    from homeserver.wiring.certificates import Certificates


class ServerParts:
    """All parts that are made from an open database and a log; none of them is started.

    `active_rooms` are those in which users may have been typing. Raises `CertificateError`.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        log: Log,
        metrics: Metrics,
        active_rooms: Collection[int],
        appservices: Appservices,
    ) -> None:
        self.db = db
        readers = self.readers = DurableReaders(log, db, reactor)
        self.jobs = Jobs(db, reactor)
        self.job_runner = JobRunner(self.jobs, db, log, reactor)
        rate_limits = rate_limits_of(reactor, settings)
        keys = load_signing_keys(settings.signing_key_path)
        self.appservice_queries = AppserviceQueries(reactor, settings, db, appservices, rate_limits)
        accounts = self.account_core = AccountCore(
            reactor, settings, key, db, log, appservices, self.appservice_queries.provisioning
        )
        federation = self.federation = Federation(reactor, settings, keys, db)
        erased, signer = accounts.erased_users, PolicySigner(federation.client)
        core = self.room_core = RoomCore(reactor, settings, key, db, log, erased, signer)
        remote = Remote(reactor, db, log, federation, core)
        self.rooms = RoomServices(
            reactor, settings, db, log, readers, accounts, core, remote.ports, rate_limits
        )
        self.user_directory = UserDirectory(
            reactor, settings, db, readers, core, self.rooms.summaries
        )
        self.retention = Retention(reactor, settings, db, log, readers, self.jobs, core, self.rooms)
        self.encryption = Encryption(
            reactor, settings, db, log, readers, accounts, core, remote.ports.keys
        )
        self.accounts = self._account_services(reactor, settings, remote)
        self.media = MediaRepository(reactor, settings, db, remote.ports.media, rate_limits)
        self.url_previews = UrlPreviewServices(reactor, settings, db, self.media.store, rate_limits)
        self.sync = Sync(
            reactor,
            settings,
            db,
            log,
            readers,
            accounts,
            core,
            self.rooms,
            self.encryption,
            active_rooms,
        )
        self.search = Search(
            reactor, settings, db, log, self.jobs, readers, accounts, core, self.rooms
        )
        self.appservices = self._appservices(reactor, log)
        self.federated_rooms = self._federated_rooms(reactor, log, remote, rate_limits)
        self.stream = Stream(reactor, settings, log, rate_limits, accounts, self.rooms, self.sync)
        self.certificates = self._certificates(reactor, settings, metrics)
        self._watch(metrics)
        self.listeners = self._listeners(reactor, settings, log, metrics, rate_limits)

    def _account_services(
        self, reactor: Any, settings: Settings, remote: Remote
    ) -> AccountServices:
        core = self.account_core
        return AccountServices(
            reactor,
            settings,
            self.db,
            core,
            remote.ports.find_profile,
            on_profile_changed=[self.rooms.profile_propagation.profile_changed],
            # Keys first: those who share a room with the user have to hear of it.
            on_deactivated=[
                self.encryption.cross_signing.deactivated,
                self.rooms.forced_leaves.deactivated,
                self.encryption.key_backups.deactivated,
                core.pushers.deactivated,
                self.rooms.delayed_events.deactivated,
            ],
        )

    def _watch(self, metrics: Metrics) -> None:
        core, rooms = self.room_core, self.rooms
        watch(metrics, self.db, self.readers, core, rooms, self.sync, self.stream)
        watch_federation(metrics, self.federated_rooms)
        pushers = self.sync.push.pushers
        watch_push(metrics, pushers.queues)
        if pushers.digests is not None:
            watch_mails(metrics, pushers.digests)
        self.url_previews.watch(metrics)
        watch_jobs(metrics, self.job_runner)
        caches, tasks = caches_and_tasks_of(self)
        watch_periodic_tasks(metrics, tasks)
        metrics.show_caches(caches)

    def _appservices(self, reactor: Any, log: Log) -> AppserviceServices:
        return AppserviceServices(
            reactor,
            self.appservice_queries,
            self.db,
            log,
            self.readers,
            self.account_core,
            self.room_core,
            self.encryption,
            self.sync.typing,
            self.sync.receipts,
        )

    def _federated_rooms(
        self, reactor: Any, log: Log, remote: Remote, rate_limits: RateLimits
    ) -> FederatedRooms:
        return FederatedRooms(
            reactor,
            self.db,
            log,
            self.readers,
            self.federation,
            self.account_core,
            self.room_core,
            remote,
            self.rooms,
            self.encryption,
            self.sync,
            rate_limits,
        )

    def _certificates(
        self, reactor: Any, settings: Settings, metrics: Metrics
    ) -> "Certificates | None":
        if not settings.acme.enabled:
            return None
        from homeserver.wiring.certificates import Certificates

        return Certificates(reactor, settings, metrics)

    def _listeners(
        self,
        reactor: Any,
        settings: Settings,
        log: Log,
        metrics: Metrics,
        rate_limits: RateLimits,
    ) -> Listeners:
        shutdown = Shutdown()
        for end_waits in (
            self.sync.end_waits,
            self.stream.end_waits,
            self.appservices.end_waits,
            self.federated_rooms.end_waits,
            self.federation.end_waits,
            self.appservice_queries.end_waits,
        ):
            shutdown.notify(end_waits)
        http = Http(
            reactor,
            settings,
            shutdown,
            metrics,
            self.account_core,
            rate_limits,
            self.federation.authentication,
        )
        moderation = Moderation(
            reactor,
            settings,
            self.db,
            self.account_core,
            self.accounts,
            self.room_core,
            self.rooms,
        )
        federation_routes = [
            *self.accounts.federation_routes(),
            *self.federation.routes(
                self.accounts.profiles, self.rooms.aliases, self.rooms.directory
            ),
            *self.media.federation_routes(),
            *self.federated_rooms.routes(),
        ]
        health_checks = DatabaseHealth(self.db, log, reactor).checks()
        return http.listeners(
            self._client_routes(settings, moderation),
            federation_routes,
            health_checks,
            self.certificates,
        )

    def _client_routes(self, settings: Settings, moderation: Moderation) -> list[Route]:
        return [
            *self.accounts.routes(_conditional_features(settings)),
            *self.rooms.routes(),
            *self.user_directory.routes(),
            *moderation.routes(),
            *self.encryption.routes(
                self.sync.engine, self.accounts.uia, self.accounts.cross_signing_resets
            ),
            *self.media.routes(),
            *self.url_previews.routes(),
            *self.search.routes(),
            *self.sync.routes(),
            *self.stream.routes(),
            *self.appservice_queries.routes(),
            *self.appservices.routes(),
        ]


def _conditional_features(settings: Settings) -> dict[str, bool]:
    """The flags in `/versions` that depend on the settings."""
    features = {STREAM: settings.websocket.enabled}
    if settings.delayed_events.max_scheduled:
        features |= dict.fromkeys(DELAYED_EVENTS, True)
    if settings.threads.subscriptions:
        features[THREADS] = True
    if settings.oauth.enabled:
        features[QR_LOGIN] = True
    return features
