"""The registry of open WebSockets, which limits their number and closes them.

A client that opens the same connection of a device again, after a network failure, replaces the old
one. Sockets are closed as soon as their device is logged out; other ends of an access token, such
as its expiry, are noticed within `CHECK_SECONDS`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountDataChanged
from homeserver.client_api.sync.stream_session import (
    NOT_VALID,
    REPLACED,
    RESTART,
    TOKEN_INVALID,
    device_of,
)
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.config.sections.limits import WebSocketSettings
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.event_types import IGNORED_USER_LIST

CHECK_SECONDS = 60.0
CHECK_BATCH_SIZE = 100  # tokens

log = Logger()


class OpenSession(Protocol):
    """The part of a `StreamSession` that is used here."""

    user_id: str
    device: str
    connection: str

    def close(self, code: int, reason: str) -> None: ...

    async def check_token(self) -> None: ...

    async def refresh_request(self) -> None: ...


class StreamConnections:
    """All sessions of this process. `apply` is to be subscribed to the log.

    `start` it, and `await stop()`.
    """

    def __init__(self, clock: IReactorTime, settings: WebSocketSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._by_user: dict[str, dict[tuple[str, str], OpenSession]] = {}
        self._checking = PeriodicTask(
            clock, CHECK_SECONDS, self.check_tokens, name="the check of WebSockets' access tokens"
        )

    def __len__(self) -> int:
        return sum(len(sessions) for sessions in self._by_user.values())

    def __iter__(self) -> Iterator[OpenSession]:
        return iter([s for sessions in self._by_user.values() for s in sessions.values()])

    def start(self) -> None:
        """Begin to check tokens periodically."""
        self._checking.start()

    def stop(self) -> None:
        """Close all sockets: the server is shutting down, and clients should reconnect soon."""
        self._checking.stop()
        for session in self:
            session.close(RESTART, "The server restarts")

    def check_may_open(self, caller: Requester, connection: str) -> None:
        """Raise `LimitExceeded` where another socket would be too many.

        The time to wait is that after which sockets of disconnected clients have timed out.
        """
        device = device_of(caller)
        sessions = self._by_user.get(caller.user_id, {})
        if (device, connection) in sessions:
            return
        of_device = sum(1 for other, _ in sessions if other == device)
        limits = self._settings
        if of_device >= limits.max_per_device or len(sessions) >= limits.max_per_user:
            retry_after_ms = int(limits.ping_interval * 2000)
            raise LimitExceeded(retry_after_ms, "There are too many WebSockets open")

    def add(self, session: OpenSession) -> None:
        """Add an opened socket; it replaces one of the same device and name."""
        sessions = self._by_user.setdefault(session.user_id, {})
        key = (session.device, session.connection)
        replaced = sessions.get(key)
        sessions[key] = session
        if replaced is not None:
            replaced.close(REPLACED, "The connection was opened again")

    def remove(self, session: OpenSession) -> None:
        """Remove a closed socket."""
        sessions = self._by_user.get(session.user_id, {})
        key = (session.device, session.connection)
        if sessions.get(key) is session:
            del sessions[key]
            if not sessions:
                del self._by_user[session.user_id]

    def close_device(self, user_id: str, device_id: str) -> None:
        """Close the sockets of a device that was logged out."""
        for session in list(self._by_user.get(user_id, {}).values()):
            if session.device == device_id:
                session.close(TOKEN_INVALID, NOT_VALID)

    def close_user(self, user_id: str) -> None:
        """Close all sockets of a user."""
        for session in list(self._by_user.get(user_id, {}).values()):
            session.close(TOKEN_INVALID, NOT_VALID)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries."""
        for entry in entries:
            if isinstance(entry, DevicesRemoved):
                for device_id in entry.device_ids:
                    self.close_device(entry.user_id, device_id)
            elif isinstance(entry, AccountDataChanged) and entry.type == IGNORED_USER_LIST:
                self._refresh(entry.user_id)

    async def check_tokens(self) -> None:
        """Close the sockets whose access tokens are not valid any more."""
        # One after the other, with pauses: no request waits for this, and others need the database.
        for index, session in enumerate(self):
            try:
                await session.check_token()
            except Exception as error:
                log.warn("could not check an access token: {error}", error=error)
            if index % CHECK_BATCH_SIZE == CHECK_BATCH_SIZE - 1:
                await deferLater(self._clock, 0)

    def _refresh(self, user_id: str) -> None:
        for session in self._by_user.get(user_id, {}).values():
            ensureDeferred(session.refresh_request()).addErrback(
                lambda failure: log.failure("could not apply the ignored users", failure)
            )
