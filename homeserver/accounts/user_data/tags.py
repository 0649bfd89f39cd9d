"""Tags: the labels that a user gives to rooms, stored as account data of type `m.tag`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-tagging
"""

from typing import Any

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import BadJson, InvalidParam
from homeserver.protocol.event_types import TAG

MAX_TAG_BYTES = 255


class Tags:
    """Reads and changes tags."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data
        self._locks: KeyedLocks[tuple[str, str]] = KeyedLocks()

    async def of_room(self, user_id: str, room_id: str) -> dict[str, Any]:
        """The tags of a room, each with the content that the client stored."""
        content = await self._account_data.content(user_id, TAG, room_id)
        tags = msgspec.json.decode(content).get("tags") if content else None
        return tags if isinstance(tags, dict) else {}

    async def put(self, user_id: str, room_id: str, tag: str, about: dict[str, Any]) -> None:
        """Tag a room. Raises `InvalidParam` for a name that is too long, and `BadJson`."""
        if not tag or len(tag.encode()) > MAX_TAG_BYTES:
            raise InvalidParam(f"The name of a tag has 1 to {MAX_TAG_BYTES} bytes")
        order = about.get("order", 0)
        if isinstance(order, bool) or not isinstance(order, int | float):
            raise BadJson("The order of a tag must be a number")
        await self._change(user_id, room_id, tag, about)

    async def remove(self, user_id: str, room_id: str, tag: str) -> None:
        """Remove a tag from a room, if it is there."""
        await self._change(user_id, room_id, tag, None)

    async def migrate(self, user_id: str, old_room_id: str, new_room_id: str) -> None:
        """Copy the tags of a room to the one that replaces it, unless its tags were ever set."""
        tags = await self.of_room(user_id, old_room_id)
        present = await self._account_data.content(user_id, TAG, new_room_id)
        if tags and present is None:
            await self._account_data.set(user_id, new_room_id, TAG, {"tags": tags})

    async def _change(
        self, user_id: str, room_id: str, tag: str, about: dict[str, Any] | None
    ) -> None:
        """Change the tags of a room, one change at a time: all tags are one value."""
        async with self._locks.hold((user_id, room_id)):
            tags = await self.of_room(user_id, room_id)
            if tags.get(tag) == about:
                return
            others = {name: value for name, value in tags.items() if name != tag}
            changed = others if about is None else others | {tag: about}
            await self._account_data.set(user_id, room_id, TAG, {"tags": changed})
