"""What can go wrong with a request to another server.

The text of each is for logs: it may name addresses. `is_alive` says whether the server is there and
works, however it answered: if not, it is left alone for a while.

Spec: https://spec.matrix.org/v1.19/server-server-api/#api-standards
"""

from typing import Any


class FederationError(Exception):
    """A request to `server` brought no answer that can be used."""

    is_alive = False

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"{server}: {reason}")
        self.server = server


class FederationDenied(FederationError):
    """This server does not talk to that one; nothing was sent."""

    is_alive = True


class BackingOff(FederationError):
    """The server failed lately and is left alone; nothing was sent."""


class Unreachable(FederationError):
    """The server was not found, did not let itself be connected to, or did not answer in time."""


class OutOfTime(FederationError):
    """The time for a piece of work is over; nothing was sent, and the server is not to blame."""


class InvalidResponse(FederationError):
    """The answer is not one that a homeserver gives: no JSON, the wrong shape, too large."""


class TooBusy(FederationError):
    """This server reads too much at the same time; the other one is not to blame."""

    is_alive = True


class RemoteError(FederationError):
    """The server answered with an error: its HTTP `status`, `errcode` and whole `body`."""

    def __init__(self, server: str, status: int, body: dict[str, Any]) -> None:
        self.status = status
        self.errcode = str(body.get("errcode", ""))
        self.error = str(body.get("error", ""))
        self.body = body
        super().__init__(server, f"{status} {self.errcode}: {self.error}"[:500])

    @property
    def is_alive(self) -> bool:  # type: ignore[override]
        """A fault of the server itself is not to be told from one that is not there."""
        return self.status < 500

    @property
    def retry_after_ms(self) -> int | None:
        """When to try again, where the server says so."""
        value = self.body.get("retry_after_ms")
        return value if isinstance(value, int) and value >= 0 else None
