"""Pages for people and machines that are not Matrix clients: `/`, `/health` and `/metrics`."""

from collections.abc import Awaitable, Callable, Mapping

from jinja2 import Environment, PackageLoader, select_autoescape
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from homeserver.version import VERSION
from homeserver.web.routes import Answer, Auth, Route

Check = Callable[[], bool | Awaitable[bool]]
log = Logger()

_HTML_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "public, max-age=300",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


class WelcomePage:
    """`GET /`: what this server is, for somebody who opened its address in a browser.

    `public_baseurl` is where clients reach the server, if the configuration says so.
    """

    def __init__(self, server_name: str, public_baseurl: str | None) -> None:
        environment = Environment(
            loader=PackageLoader("homeserver.web", "templates"), autoescape=select_autoescape()
        )
        self._page = environment.get_template("welcome.html").render(
            server_name=server_name, public_baseurl=public_baseurl
        )

    def routes(self) -> list[Route]:
        return [Route("GET", "/", self.welcome, Auth.NONE)]

    def welcome(self) -> Answer:
        """A page in HTML."""
        return Answer(200, self._page.encode(), _HTML_HEADERS)


class Health:
    """`GET /health`: whether the server can do its work, for load balancers and monitoring.

    Each check answers, perhaps later, whether its part is well; one that raises is not well.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def routes(self) -> list[Route]:
        return [Route("GET", "/health", self.health, Auth.NONE, cancellable=True)]

    async def health(self) -> Answer:
        """200 when all is well, else 503; the body names each check."""
        # All are asked at once, so that the answer takes no longer than the slowest.
        asked = [Deferred.fromCoroutine(_passes(*check)) for check in self._checks.items()]
        results = dict(zip(self._checks, await gatherResults(asked), strict=True))
        well = all(results.values())
        body = {
            "status": "ok" if well else "failing",
            "version": VERSION,
            "checks": {name: "ok" if passed else "failing" for name, passed in results.items()},
        }
        return Answer(200 if well else 503, body)


class MetricsPage:
    """`GET /metrics`: figures for Prometheus, as `expose` gives them."""

    def __init__(self, expose: Callable[[], bytes], content_type: str) -> None:
        self._expose = expose
        self._headers = {"Content-Type": content_type}

    def routes(self) -> list[Route]:
        return [Route("GET", "/metrics", self.metrics, Auth.NONE)]

    def metrics(self) -> Answer:
        """The figures of this moment."""
        return Answer(200, self._expose(), self._headers)


async def _passes(name: str, check: Check) -> bool:
    try:
        result = check()
        return result if isinstance(result, bool) else await result
    except CancelledError:
        raise
    except Exception:
        log.failure("the health check {name} failed", name=name)
        return False
