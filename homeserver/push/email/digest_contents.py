"""The contents of a mail: rooms and messages by name, made right before it is sent."""

from collections.abc import Sequence
from datetime import UTC, datetime

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.outbound.digest_mails import Digest, DigestMessage, DigestRoom
from homeserver.push.email.digest_texts import MAX_NAME, clean, said_by
from homeserver.push.pushers.invites import invites_user
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.pushers.room_titles import RoomTitles, title_of_stripped_state
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_ROOMS = 10  # in a mail
MAX_MESSAGES = 5  # of a room
NAMELESS = "a room without a name"


class DigestContents:
    """Makes the contents of mails."""

    def __init__(
        self,
        rooms: RoomRegistry,
        out_of_room: OutOfRoomMemberships,
        titles: RoomTitles,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._out_of_room = out_of_room
        self._titles = titles
        self._clock = clock

    async def build(self, user_id: str, pushes: Sequence[QueuedPush]) -> Digest:
        """What a user is shown of events; the rooms with the newest ones come first."""
        by_room: dict[int, list[QueuedPush]] = {}
        for push in reversed(pushes):
            by_room.setdefault(push.room_nid, []).append(push)
        shown = list(by_room.values())[:MAX_ROOMS]
        rooms = [await self._room(user_id, of_room) for of_room in shown]
        return Digest(user_id, rooms, len(by_room) - len(rooms), len(pushes))

    async def _room(self, user_id: str, newest_first: Sequence[QueuedPush]) -> DigestRoom:
        newest = newest_first[0]
        shown = newest_first[:MAX_MESSAGES][::-1]
        room = await self._rooms.by_number(newest.room_nid)
        if room is None or newest.is_out_of_room:
            title, names = await self._stripped(user_id, newest)
        else:
            title = (await self._titles.of(room)).shown_to(user_id)
            names = await self._names(room, shown)
        return DigestRoom(
            newest.stored.event.room_id,
            clean(title or "", MAX_NAME) or NAMELESS,
            [self._message(user_id, push, names) for push in shown],
            len(newest_first),
            invites_user(newest.stored, user_id),
        )

    async def _names(self, room: Room, pushes: Sequence[QueuedPush]) -> dict[str, str | None]:
        senders = {push.stored.event.sender for push in pushes}
        return {sender: await self._titles.display_name(room, sender) for sender in senders}

    async def _stripped(
        self, user_id: str, push: QueuedPush
    ) -> tuple[str | None, dict[str, str | None]]:
        sender = push.stored.event.sender
        stripped = await self._out_of_room.stripped_state(push.room_nid, user_id)
        title, name = title_of_stripped_state(stripped, sender)
        return title.shown_to(user_id), {sender: name}

    def _message(
        self, user_id: str, push: QueuedPush, names: dict[str, str | None]
    ) -> DigestMessage:
        event = push.stored.event
        text, quotes = said_by(event, user_id)
        # The sender's server chooses the time.
        sent_ms = min(max(event.origin_server_ts, 0), now_ms(self._clock))
        moment = datetime.fromtimestamp(sent_ms / 1000, UTC)
        return DigestMessage(
            clean(names.get(event.sender) or "", MAX_NAME) or clean(event.sender, MAX_NAME),
            text,
            quotes,
            moment.strftime("%a %H:%M"),
            event.event_id,
        )
