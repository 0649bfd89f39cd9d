"""The errors of a request to another server.

The message of each is for logs: it may name addresses. `is_alive` says whether the server works,
even if it responded with an error: if not, this server backs off for a while.

Spec: https://spec.matrix.org/v1.19/server-server-api/#api-standards
"""

from typing import Any

from homeserver.protocol.errors import LimitExceeded

MAX_RETRY_AFTER_MS = 3_600_000
DEFAULT_RETRY_AFTER_MS = 5_000  # if the server limits requests without naming a time
MAX_RETRY_AFTER_OF_CLIENT_MS = 60_000


class FederationError(Exception):
    """A request to `server` brought no response that can be used."""

    is_alive = False

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"{server}: {reason}")
        self.server = server


class FederationDenied(FederationError):
    """The configuration does not permit requests to this server; nothing was sent."""

    is_alive = True


class BackingOff(FederationError):
    """The server failed lately, and its pause is not over; nothing was sent."""


class Unreachable(FederationError):
    """The server was not found, accepted no connection, or did not respond in time."""


class OutOfTime(FederationError):
    """The deadline of several requests has passed; nothing was sent, and the server is not to
    blame.
    """


class InvalidResponse(FederationError):
    """The response is not one of a homeserver: not JSON, the wrong shape, or too large."""


class TooBusy(FederationError):
    """This server reads too many responses at the same time; the other one is not to blame."""

    is_alive = True


class RemoteError(FederationError):
    """The server responded with an error: its HTTP `status`, `errcode` and the `body`.

    `wait_ms` is the time of the header `Retry-After`, in ms.
    """

    def __init__(
        self, server: str, status: int, body: dict[str, Any], wait_ms: int | None = None
    ) -> None:
        self.status = status
        self._wait_ms = wait_ms
        self.errcode = str(body.get("errcode", ""))
        self.error = str(body.get("error", ""))
        self.body = body
        super().__init__(server, f"{status} {self.errcode}: {self.error}"[:500])

    @property
    def is_alive(self) -> bool:  # type: ignore[override]
        """False for an internal error of the server, which says no more than that it is
        unavailable.
        """
        return self.status < 500

    @property
    def retry_after_ms(self) -> int | None:
        """The time after which to try again, if the server named one; an hour if it named more.

        The member of the body is deprecated, and counts only without the header.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
        """
        value = self._wait_ms
        if value is None:
            value = self.body.get("retry_after_ms")
        if not isinstance(value, int) or value < 0:
            return None
        return min(value, MAX_RETRY_AFTER_MS)

    def limit_exceeded(self) -> LimitExceeded:
        """The error for the client whose request the server has limited.

        A client may stop all its requests until then, so the time is short, whatever was named.
        """
        wait = self.retry_after_ms
        wait = DEFAULT_RETRY_AFTER_MS if wait is None else wait
        return LimitExceeded(min(wait, MAX_RETRY_AFTER_OF_CLIENT_MS))
