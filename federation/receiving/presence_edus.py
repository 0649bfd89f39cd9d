"""Presence of users, sent to servers that share a room with them, and received from those.

Spec: https://spec.matrix.org/v1.19/server-server-api/#presence
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from federation.sending.room_servers import RoomServers
from federation.sending.sender import Sender
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.remote_presence import RemotePresence
from homeserver.presence.tracker import MAX_STATUS_BYTES, PresenceTracker
from homeserver.presence.user_presence import OFFLINE, ONLINE, UNAVAILABLE, State
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.event_types import PRESENCE
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry

MAX_UPDATES = 500  # of one EDU
PRESENCE_RESEND_SECONDS = 25 * 60.0  # other servers time out users without updates
RESEND_BATCH_SIZE = 100  # updates of one EDU that is sent again
log = Logger()
_STATES: dict[str, State] = {"online": ONLINE, "unavailable": UNAVAILABLE, "offline": OFFLINE}


class PresenceEdus:
    """Presence over federation. Subscribe `apply` to the log after the rooms."""

    def __init__(
        self,
        rooms: RoomRegistry,
        tracker: PresenceTracker,
        remote: RemotePresence,
        sender: Sender,
        servers: RoomServers,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._tracker = tracker
        self._remote = remote
        self._sender = sender
        self._resending = PeriodicTask(
            clock, PRESENCE_RESEND_SECONDS, self._resend, name="sending presence again"
        )

    def start(self) -> None:
        """Send the presence of online users again from time to time."""
        if self._tracker.enabled:
            self._resending.start()

    def stop(self) -> None:
        """Send nothing more."""
        self._resending.stop()

    async def receive(self, origin: str, content: Mapping[str, Any]) -> None:
        """Receive the presence of users of another server."""
        updates = content.get("push")
        if not self._tracker.enabled or not isinstance(updates, list):
            return
        for update in updates[:MAX_UPDATES]:
            if not isinstance(update, Mapping):
                continue
            user_id, state = update.get("user_id"), update.get("presence")
            if not isinstance(user_id, str) or user_id.partition(":")[2] != origin:
                continue
            if isinstance(state, str) and state in _STATES:
                await self._remote.receive(
                    user_id,
                    _STATES[state],
                    _status(update.get("status_msg")),
                    _milliseconds(update.get("last_active_ago")),
                )

    def apply(self, entries: Sequence[Any]) -> None:
        """Send changes of local users, and all of them to servers that join (called by the log)."""
        for entry in entries:
            if isinstance(entry, PresenceChanged):
                if self._rooms.local_server.is_local(entry.user_id):
                    self._publish(entry)
            elif isinstance(entry, StateChanged) and entry.changes and self._tracker.enabled:
                self._send_to_newcomers(entry)

    def _publish(self, entry: PresenceChanged) -> None:
        servers, cold = self._servers.known(entry.rooms)
        self._send(servers, entry)
        if cold:
            sending = Deferred.fromCoroutine(self._send_to_cold_rooms(entry, cold, servers))
            sending.addErrback(_log_failure)

    async def _send_to_cold_rooms(
        self, entry: PresenceChanged, rooms: Sequence[int], sent_to: Collection[str]
    ) -> None:
        """Send to the servers in rooms that are not in memory."""
        await self._servers.load(rooms)
        self._send(self._servers.known(rooms)[0].difference(sent_to), entry)

    def _resend(self) -> None:
        updates: dict[str, list[dict[str, Any]]] = {}
        for user in self._tracker.present():
            # The servers in all of these rooms were loaded when the user came online.
            for server in self._servers.known(user.rooms)[0]:
                updates.setdefault(server, []).append(self._update(user.published))
        for server, pending in updates.items():
            for at in range(0, len(pending), RESEND_BATCH_SIZE):
                content = {"push": pending[at : at + RESEND_BATCH_SIZE]}
                self._sender.send_edu([server], PRESENCE, content, at)

    def _send_to_newcomers(self, entry: StateChanged) -> None:
        """Send the presence of local users to the servers of users who join a room with them."""
        is_local = self._rooms.local_server.is_local
        servers = {
            user_id.partition(":")[2]
            for user_id, membership, _ in entry.members()
            if membership == "join" and not is_local(user_id)
        }
        room = self._rooms.loaded(entry.room_nid)
        if (
            not servers
            or room is None
            or self._rooms.local_server.server_name not in room.joined_servers
        ):
            return
        for user in self._tracker.present():
            if entry.room_nid in user.rooms:
                self._send(servers, user.published)

    def _send(self, servers: set[str], presence: PresenceChanged) -> None:
        if servers:
            content = {"push": [self._update(presence)]}
            self._sender.send_edu(servers, PRESENCE, content, presence.user_id)

    def _update(self, presence: PresenceChanged) -> dict[str, Any]:
        content = presence.content(self._tracker.now_ms())
        # It is required, unlike in events for clients. Who was there without having done anything
        # has just connected, or left.
        return {"user_id": presence.user_id, "last_active_ago": 0, **content}


def _log_failure(failure: Failure) -> None:
    # Nothing needs to be logged about presence while the database is unavailable.
    if not failure.check(Unavailable):
        log.failure("could not send presence to other servers", failure)


def _status(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > MAX_STATUS_BYTES:
        return None
    return value


def _milliseconds(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else None
