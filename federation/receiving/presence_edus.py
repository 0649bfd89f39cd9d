"""Who is there: told to servers that share a room with a user, and taken from them.

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
PRESENCE_RESEND_SECONDS = 25 * 60.0  # others take those for gone of whom they hear nothing
RESEND_BATCH_SIZE = 100  # updates of one EDU that tells again
log = Logger()
_STATES: dict[str, State] = {"online": ONLINE, "unavailable": UNAVAILABLE, "offline": OFFLINE}


class PresenceEdus:
    """Presence over federation. `apply` is to be subscribed to the log, after the rooms."""

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
        self._telling = PeriodicTask(
            clock, PRESENCE_RESEND_SECONDS, self._tell_again, name="telling again who is present"
        )

    def start(self) -> None:
        """Tell again from time to time of those who are there."""
        if self._tracker.enabled:
            self._telling.start()

    def stop(self) -> None:
        """Tell of nobody any more."""
        self._telling.stop()

    async def receive(self, origin: str, content: Mapping[str, Any]) -> None:
        """Users of another server came, went, or fell asleep."""
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

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: tell of our users, and tell newcomers of those who are there."""
        for fact in facts:
            if isinstance(fact, PresenceChanged):
                if self._rooms.local_server.is_local(fact.user_id):
                    self._tell(fact)
            elif isinstance(fact, StateChanged) and self._tracker.enabled:
                self._greet(fact)

    def _tell(self, fact: PresenceChanged) -> None:
        servers, cold = self._servers.known(fact.rooms)
        self._send(servers, fact)
        if cold:
            telling = Deferred.fromCoroutine(self._tell_others(fact, cold, servers))
            telling.addErrback(_log_failure)

    async def _tell_others(
        self, fact: PresenceChanged, rooms: Sequence[int], told: Collection[str]
    ) -> None:
        """Tell the servers in rooms that are not in memory."""
        await self._servers.load(rooms)
        self._send(self._servers.known(rooms)[0].difference(told), fact)

    def _tell_again(self) -> None:
        updates: dict[str, list[dict[str, Any]]] = {}
        for user in self._tracker.present():
            # The servers in all of them were asked for when the user came.
            for server in self._servers.known(user.rooms)[0]:
                updates.setdefault(server, []).append(self._update(user.published))
        for server, told in updates.items():
            for at in range(0, len(told), RESEND_BATCH_SIZE):
                content = {"push": told[at : at + RESEND_BATCH_SIZE]}
                self._sender.send_edu([server], PRESENCE, content, at)

    def _greet(self, fact: StateChanged) -> None:
        """Tell the servers of users who come into a room of our users there who are present."""
        is_ours = self._rooms.local_server.is_local
        servers = {
            user_id.partition(":")[2]
            for user_id, membership, _ in fact.members()
            if membership == "join" and not is_ours(user_id)
        }
        room = self._rooms.loaded(fact.room_nid)
        if (
            not servers
            or room is None
            or self._rooms.local_server.server_name not in room.joined_servers
        ):
            return
        for user in self._tracker.present():
            if fact.room_nid in user.rooms:
                self._send(servers, user.published)

    def _send(self, servers: set[str], told: PresenceChanged) -> None:
        if servers:
            content = {"push": [self._update(told)]}
            self._sender.send_edu(servers, PRESENCE, content, told.user_id)

    def _update(self, told: PresenceChanged) -> dict[str, Any]:
        return {"user_id": told.user_id, **told.content(self._tracker.now_ms())}


def _log_failure(failure: Failure) -> None:
    # While the database is away, presence is not what is missed.
    if not failure.check(Unavailable):
        log.failure("other servers are not told of somebody's presence", failure)


def _status(value: object) -> str | None:
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > MAX_STATUS_BYTES:
        return None
    return value


def _milliseconds(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else None
