"""HTTP: the listeners, the request pipeline, and the server's own pages."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from homeserver.config.settings import Settings
from homeserver.observability.metrics import Metrics
from homeserver.web.addresses import TrustedProxies
from homeserver.web.authentication import ServerAuthenticator
from homeserver.web.listeners import Listeners
from homeserver.web.pages import Check, Health, MetricsPage, WelcomePage
from homeserver.web.pipeline import RequestLimits, RequestPipeline, body_budget
from homeserver.web.rate_limits import RateLimits
from homeserver.web.router import Router
from homeserver.web.routes import Route
from homeserver.web.server import HttpServer
from homeserver.web.shutdown import Shutdown
from homeserver.wiring.accounts.account_core import AccountCore

if TYPE_CHECKING:
    from homeserver.wiring.certificates import Certificates


class Http:
    """Makes the listeners."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        shutdown: Shutdown,
        metrics: Metrics,
        account_core: AccountCore,
        rate_limits: RateLimits,
        servers: ServerAuthenticator,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._shutdown = shutdown
        self._metrics = metrics
        self._pages = account_core.pages
        limits = settings.limits
        self._pipeline = RequestPipeline(
            account_core.access_tokens,
            rate_limits,
            TrustedProxies(settings.trusted_proxies),
            RequestLimits(limits.max_body, limits.request_timeout, limits.idle_timeout),
            metrics,
            servers,
            account_core.appservices,
            body_budget(limits.max_bodies),
            self._pages,
            logs_requests=settings.log.level in ("DEBUG", "INFO"),
        )

    def listeners(
        self,
        client_routes: Sequence[Route],
        federation_routes: Sequence[Route],
        health_checks: Mapping[str, Check],
        certificates: "Certificates | None",
    ) -> Listeners:
        """Listeners that serve these routes and the server's own pages."""
        settings = self._settings
        welcome = WelcomePage(self._pages, settings)
        groups = {
            "client": [*welcome.routes(), *client_routes],
            "federation": federation_routes,
            "health": Health(health_checks).routes(),
            "metrics": self._metrics_routes(),
            "acme": [] if certificates is None else certificates.routes(),
        }
        return Listeners(
            self._reactor,
            settings.listeners,
            groups,
            self._make_server,
            self._shutdown,
            None if certificates is None else certificates.renewal.tls,
        )

    def _metrics_routes(self) -> list[Route]:
        if not any("metrics" in each.resources for each in self._settings.listeners):
            return []
        from homeserver.observability.exposition import CONTENT_TYPE, Exposition

        return MetricsPage(Exposition(self._metrics).text, CONTENT_TYPE).routes()

    def _make_server(self, router: Router) -> HttpServer:
        return HttpServer(self._reactor, router, self._pipeline)
