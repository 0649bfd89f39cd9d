"""Pages for people and machines that are not Matrix clients: `/`, `/health` and `/metrics`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from homeserver.version import VERSION
from homeserver.web.html import Pages
from homeserver.web.routes import Auth, Response, Route

Check = Callable[[], bool | Awaitable[bool]]
log = Logger()


class WelcomeSettings(Protocol):
    """What the page tells of the configuration."""

    @property
    def public_baseurl(self) -> str | None: ...

    @property
    def registration(self) -> Any: ...

    @property
    def support(self) -> Any: ...


class WelcomePage:
    """`GET /`: what this server is, for somebody who opened its address in a browser.

    It says where clients reach the server, how to get an account, and whom to ask for help.
    """

    def __init__(self, pages: Pages, settings: WelcomeSettings) -> None:
        self._page = pages.page(
            "welcome",
            headers={"Cache-Control": "public, max-age=300"},
            is_public=True,
            public_baseurl=settings.public_baseurl,
            registration=settings.registration,
            support=settings.support,
        )

    def routes(self) -> list[Route]:
        return [Route("GET", "/", self.welcome, Auth.NONE, page=True)]

    def welcome(self) -> Response:
        """A page in HTML."""
        return self._page


class Health:
    """`GET /health`: whether the server can do its work, for load balancers and monitoring.

    Each check answers, perhaps later, whether its part is well; one that raises is not well.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def routes(self) -> list[Route]:
        return [Route("GET", "/health", self.health, Auth.NONE, cancellable=True)]

    async def health(self) -> Response:
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
        return Response(200 if well else 503, body)


class MetricsPage:
    """`GET /metrics`: figures for Prometheus, as `expose` gives them."""

    def __init__(self, expose: Callable[[], bytes], content_type: str) -> None:
        self._expose = expose
        self._headers = {"Content-Type": content_type}

    def routes(self) -> list[Route]:
        return [Route("GET", "/metrics", self.metrics, Auth.NONE)]

    def metrics(self) -> Response:
        """The figures of this moment."""
        return Response(200, self._expose(), self._headers)


async def _passes(name: str, check: Check) -> bool:
    try:
        result = check()
        return result if isinstance(result, bool) else await result
    except CancelledError:
        raise
    except Exception:
        log.failure("the health check {name} failed", name=name)
        return False
