"""The certificate that the server obtains by itself: its orders, and their challenges."""

from typing import Any

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.challenges import Challenges, ChallengesApi
from homeserver.certificates.order_process import Orders
from homeserver.certificates.renewal import CertificateRenewal
from homeserver.certificates.renewal_rules import Subject
from homeserver.config.settings import Settings
from homeserver.observability.metrics import Metrics
from homeserver.web.routes import Route


class Certificates:
    """Makes what orders, renews and proves one certificate."""

    def __init__(self, reactor: Any, settings: Settings, metrics: Metrics) -> None:
        names = settings.acme_names
        challenges = Challenges()
        folder = AcmeFolder(settings.acme_dir)
        self.renewal = CertificateRenewal(
            reactor,
            Subject(settings.acme.directory, frozenset(names)),
            folder,
            Orders(settings.acme, folder, challenges),
        )
        self._api = ChallengesApi(challenges, settings.server_name, names, settings.public_baseurl)
        self._watch(metrics)

    def routes(self) -> list[Route]:
        """The routes of the resource `acme`."""
        return self._api.routes()

    def _watch(self, metrics: Metrics) -> None:
        renewal = self.renewal
        metrics.gauge(
            "certificate_seconds_left",
            "Time until the certificate that was obtained by ACME expires; 0 before the first one.",
            lambda: renewal.seconds_left,
        )
        metrics.counter(
            "certificate_orders_failed",
            "Orders of a certificate that failed; they are repeated.",
            lambda: renewal.failures,
        )
