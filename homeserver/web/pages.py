"""Resources for users and machines other than Matrix clients: `/`, `/health` and `/metrics`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from homeserver.version import VERSION
from homeserver.web.html import Pages
from homeserver.web.routes import Auth, Response, Route

Check = Callable[[], bool | Awaitable[bool]]
log = Logger()


class WelcomeSettings(Protocol):
    """The settings that the page shows."""

    @property
    def public_baseurl(self) -> str | None: ...

    @property
    def registration(self) -> Any: ...

    @property
    def passwords(self) -> Any: ...

    @property
    def oauth(self) -> Any: ...

    @property
    def support(self) -> Any: ...


class WelcomePage:
    """`GET /`: a description of this server, for a user who opens its address in a browser.

    It says at which address clients reach the server, how to get an account, and how to get help.
    """

    def __init__(self, pages: Pages, settings: WelcomeSettings) -> None:
        self._pages = pages
        self._settings = settings

    def routes(self) -> list[Route]:
        return [Route("GET", "/", self.welcome, Auth.NONE, page=True)]

    def welcome(self) -> Response:
        """The HTML page."""
        return self._page

    @cached_property
    def _page(self) -> Response:
        settings = self._settings
        return self._pages.page(
            "welcome",
            headers={"Cache-Control": "public, max-age=300"},
            is_public=True,
            public_baseurl=settings.public_baseurl,
            registration=settings.registration,
            has_account_pages=settings.oauth.enabled,
            can_sign_up=settings.oauth.enabled and settings.passwords.enabled,
            support=settings.support,
        )


class Health:
    """`GET /health`: whether the server is working, for load balancers and monitoring.

    Each check returns, perhaps later, whether its part works; an exception means that it does not.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def routes(self) -> list[Route]:
        return [Route("GET", "/health", self.health, Auth.NONE, cancellable=True)]

    async def health(self) -> Response:
        """200 if all checks pass, else 503; the body has the result of each check."""
        # All checks run at the same time, so that the response takes no longer than the slowest.
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
    """`GET /metrics`: metrics for Prometheus, from `expose`."""

    def __init__(self, expose: Callable[[], bytes], content_type: str) -> None:
        self._expose = expose
        self._headers = {"Content-Type": content_type}

    def routes(self) -> list[Route]:
        return [Route("GET", "/metrics", self.metrics, Auth.NONE)]

    def metrics(self) -> Response:
        """The present metrics."""
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
