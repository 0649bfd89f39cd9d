"""Room titles: how a notification names a room, and the senders in it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import CANONICAL_ALIAS_KEY, MEMBER, NAME_KEY
from homeserver.rooms.discovery.heroes import first_members
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_CACHED = 20_000  # rooms, and display names
MAX_LENGTH = 255  # characters
MAX_NAMED = 2  # members whom a title names


class RoomTitle(msgspec.Struct, frozen=True):
    """The name and canonical alias of a room; without both, its first members by name.

    `others` is the number of all other members.
    """

    root: bytes
    name: str | None
    alias: str | None
    members: Sequence[tuple[str, str]] = ()  # (user id, display name)
    count: int = 0

    def shown_to(self, user_id: str) -> str | None:
        """The title for a member, who is not named in it."""
        if self.name or self.alias:
            return self.name or self.alias
        names = [name for other, name in self.members if other != user_id][:MAX_NAMED]
        more = self.count - 1 - len(names)
        if not names:
            return None
        if more > 0:
            return f"{', '.join(names)} and {more} more"
        return " and ".join(names)


class RoomTitles:
    """Finds titles and display names, which are cached until the state of the room changes."""

    def __init__(self, rooms: RoomRegistry) -> None:
        self._rooms = rooms
        self._titles: LruCache[int, RoomTitle] = LruCache("room_titles", MAX_CACHED)
        # The number of the member event, and the name in it, by room and user.
        self._names: LruCache[tuple[int, str], tuple[int, str | None]] = LruCache(
            "sender_names", MAX_CACHED
        )

    async def of(self, room: Room) -> RoomTitle:
        """The title of a room."""
        title = self._titles.get(room.room_nid)
        if title is None or title.root != room.root:
            title = self._titles.put(room.room_nid, await self._build(room))
        return title

    async def display_name(self, room: Room, user_id: str) -> str | None:
        """The display name of a user in a room, if they have one there."""
        event_nid = room.member_events.get(user_id)
        if event_nid is None:
            return None
        known = self._names.get((room.room_nid, user_id))
        if known is None or known[0] != event_nid:
            stored = (await self._rooms.load_events(room, [event_nid]))[event_nid]
            name = short_text(stored.shown.content.get("displayname"))
            known = self._names.put((room.room_nid, user_id), (event_nid, name))
        return known[1]

    async def _build(self, room: Room) -> RoomTitle:
        root = room.root
        state = await self._rooms.current(room, [NAME_KEY, CANONICAL_ALIAS_KEY])
        name, alias = (
            short_text(state[key].shown.content.get(field)) if key in state else None
            for key, field in ((NAME_KEY, "name"), (CANONICAL_ALIAS_KEY, "alias"))
        )
        if name or alias:
            return RoomTitle(root, name, alias)
        if room.heroes is None:
            room.heroes = first_members(room.members, room.member_events.__getitem__)
        members = [
            (hero, await self.display_name(room, hero) or hero)
            for hero in room.heroes[: MAX_NAMED + 1]
        ]
        return RoomTitle(root, None, None, members, room.joined_count + room.invited_count)


def title_of_stripped_state(events: Iterable[Any], sender: str) -> tuple[RoomTitle, str | None]:
    """The title of a room that is known by stripped state only, and the sender's display name."""
    contents: dict[tuple[Any, Any], Mapping[str, Any]] = {}
    for event in events:
        if isinstance(event, dict) and isinstance(event.get("content"), dict):
            key = event.get("type"), event.get("state_key")
            if all(isinstance(part, str) for part in key):
                contents[key] = event["content"]
    name = short_text(contents.get(NAME_KEY, {}).get("name"))
    alias = short_text(contents.get(CANONICAL_ALIAS_KEY, {}).get("alias"))
    display_name = short_text(contents.get((MEMBER, sender), {}).get("displayname"))
    title = RoomTitle(b"", name, alias, [(sender, display_name or sender)], 2)
    return title, display_name


def short_text(value: Any) -> str | None:
    """A text of an event, shortened; `None` if it is empty, or no text."""
    return value[:MAX_LENGTH] if isinstance(value, str) and value else None
