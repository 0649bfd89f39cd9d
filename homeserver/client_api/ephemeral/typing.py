"""Typing notifications over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.web.routes import Route


class SetTyping(msgspec.Struct):
    typing: bool
    timeout: int = 30_000  # ms


class TypingApi:
    def __init__(self, typing_users: TypingUsers) -> None:
        self._typing = typing_users

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}"
        return [Route("PUT", path, self.set_typing, limit="ephemeral")]

    async def set_typing(
        self, caller: Requester, room_id: str, user_id: str, body: SetTyping
    ) -> None:
        """Notify a room that the caller is typing, or has stopped."""
        await self._typing.set(caller, room_id, user_id, body.typing, timeout_ms=body.timeout)
