"""Who is typing: told to the other servers of a room, and taken from them.

A server that tells of somebody goes on telling while they type, and one that hears nothing for a
while takes them to have stopped.

Spec: https://spec.matrix.org/v1.19/server-server-api/#typing-notifications
"""

from collections.abc import Mapping, Sequence
from typing import Any

from federation.receiving.room_access import RoomAccess
from federation.sending.sender import Sender
from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.protocol.event_types import TYPING
from homeserver.rooms.ephemeral.typing import TypingChanged, TypingUsers
from homeserver.rooms.room.registry import RoomRegistry

TYPING_RESEND_SECONDS = 40.0
REMOTE_TYPING_TTL_MS = 60_000


class TypingEdus:
    """Typing over federation. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        rooms: RoomRegistry,
        access: RoomAccess,
        notices: TypingUsers,
        sender: Sender,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._typing = notices
        self._sender = sender
        self._clock = clock
        self._resends: dict[tuple[int, str], DelayedCall] = {}  # users of ours: told again when

    async def receive(self, origin: str, content: Mapping[str, Any]) -> None:
        """A user of another server types in a room, or has stopped."""
        room_id, user_id = content.get("room_id"), content.get("user_id")
        if not isinstance(room_id, str) or not isinstance(user_id, str):
            return
        room = await self._rooms.find(room_id)
        if (
            room is None
            or not self._access.speaks_for(origin, user_id, room)
            or not await self._access.is_allowed(origin, room)
        ):
            return
        self._typing.note(
            room.room_nid, user_id, REMOTE_TYPING_TTL_MS if content.get("typing") else 0
        )

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: tell of our users."""
        for fact in facts:
            if isinstance(fact, TypingChanged) and self._rooms.local_server.is_local(fact.user_id):
                self._publish(fact.room, fact.user_id, fact.typing)

    def stop(self) -> None:
        """Tell nobody any more."""
        for alarm in self._resends.values():
            alarm.cancel()
        self._resends.clear()

    def _publish(self, number: int, user_id: str, typing: bool) -> None:
        alarm = self._resends.pop((number, user_id), None)
        if alarm is not None and alarm.active():
            alarm.cancel()
        room = self._rooms.loaded(number)
        if room is None:
            return
        others = [server for server in room.servers if not self._is_here(server)]
        if not others:
            return
        content = {"room_id": room.room_id, "user_id": user_id, "typing": typing}
        self._sender.send_edu(others, TYPING, content, (number, user_id))
        if typing:
            self._resends[number, user_id] = self._clock.callLater(
                TYPING_RESEND_SECONDS, self._publish, number, user_id, True
            )

    def _is_here(self, server: str) -> bool:
        return server == self._rooms.local_server.server_name
