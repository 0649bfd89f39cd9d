"""URL previews. Nothing of them is used unless they are enabled."""

from ipaddress import ip_network
from typing import Any

from homeserver.client_api.media.url_previews import UrlPreviewsApi
from homeserver.config.settings import Settings
from homeserver.media.files.content_store import ContentStore
from homeserver.media.previews.permitted_urls import PermittedUrls
from homeserver.media.previews.preview_fetcher import PreviewFetcher, page_parsers
from homeserver.media.previews.preview_images import PreviewImages
from homeserver.media.previews.url_previews import UrlPreviews
from homeserver.observability.metrics import Metrics
from homeserver.outbound.http_client import OutboundClient
from homeserver.outbound.networks import open_network
from homeserver.storage.database.database import Database
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route


class UrlPreviewServices:
    """All objects of the area. Name look-ups and connections are of their own."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        store: ContentStore,
        rate_limits: RateLimits,
    ) -> None:
        rules, outbound = settings.url_previews, settings.outbound_http
        self._is_enabled = rules.enabled
        network = open_network(
            reactor,
            "URL previews",
            allow_private_addresses=outbound.allow_private_addresses,
            denied=[ip_network(each, strict=False) for each in rules.denied_networks],
        )
        self._web = OutboundClient(reactor, outbound, network=network)
        self._parsers = page_parsers(reactor)
        urls = PermittedUrls(rules)
        images = PreviewImages(db, reactor, settings, store, self._parsers)
        fetcher = PreviewFetcher(reactor, settings, self._web, urls, images, self._parsers)
        self.previews = UrlPreviews(db, reactor, settings.server_name, urls, fetcher, rate_limits)

    def start(self) -> None:
        """Have idle processes end after a while."""
        self._parsers.start()

    async def stop(self) -> None:
        """End fetches in progress, and close their connections."""
        await self.previews.stop()
        await self._web.stop()
        await self._parsers.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return UrlPreviewsApi(self.previews).routes() if self._is_enabled else []

    def watch(self, metrics: Metrics) -> None:
        """Register the metrics of the area."""
        counts = self.previews.counts
        metrics.counter(
            "url_previews_cached", "Previews that were stored already.", lambda: counts.cached
        )
        metrics.counter(
            "url_previews_fetched", "Previews for which a page was fetched.", lambda: counts.fetched
        )
        metrics.counter(
            "url_previews_failed", "Pages of which there is no preview.", lambda: counts.failed
        )
        metrics.counter(
            "url_previews_refused",
            "Previews that the settings do not permit.",
            lambda: counts.refused,
        )
