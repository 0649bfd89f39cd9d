"""Direct chats: a user's rooms with one other person, as their clients store them in `m.direct`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#direct-messaging
"""

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.protocol.event_types import DIRECT


class DirectChats:
    """Migrates direct chats to the rooms that replace them."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    async def migrate(self, user_id: str, old_room_id: str, new_room_id: str) -> None:
        """Add the new room for each user with whom the old one was a direct chat."""
        content = await self._account_data.content(user_id, DIRECT)
        chats = msgspec.json.decode(content) if content else {}
        changed = False
        # Clients wrote this, so it may have any content.
        for rooms in chats.values():
            if isinstance(rooms, list) and old_room_id in rooms and new_room_id not in rooms:
                rooms.append(new_room_id)
                changed = True
        if changed:
            await self._account_data.set(user_id, None, DIRECT, chats)
