"""Profile propagation: a user's new name or picture goes into their member events.

Every joined room gets a member event like the present one, with the new profile in it. The request
that changed the profile is answered when the first `MAX_AWAITED_ROOMS` rooms have theirs; with more
rooms than that, the others follow in the background, one after the other, in the order in which
this server came to know them. For nearly everybody that means: all rooms, before the answer.

A room that refuses is passed over. If the server stops in between, the rest of the rooms keep the
old member event until the profile, or the membership there, changes again. If the profile changes
again while rooms are waiting, they get the newest one, and only once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
"""

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME
from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.event_draft import SERVER_FIELDS, EventDraft, member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.server_state_changes import change_state
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.room.writer import RoomWriter

MAX_AWAITED_ROOMS = 20  # rooms
PROFILE_FIELDS = frozenset({DISPLAYNAME, AVATAR_URL})
# Said of the moment at which the user joined, not of the user.
OF_THE_JOIN = SERVER_FIELDS | {"reason"}
log = Logger()


class ProfilePropagation:
    """Renews member events. `stop` it before the database closes."""

    def __init__(
        self, rooms: RoomRegistry, user_rooms: UserRooms, profiles: MemberProfiles
    ) -> None:
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._profiles = profiles
        self._waiting: dict[str, deque[int]] = {}  # by user: numbers of rooms, while there is work
        self._running: dict[str, Deferred[None]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether rooms are waiting in the background."""
        return bool(self._running)

    async def profile_changed(self, user_id: str, field: str) -> None:
        """Renew the user's member events, if this field of the profile stands in them."""
        if field not in PROFILE_FIELDS:
            return
        rooms = sorted(await self._user_rooms.joined(user_id))
        await self._renew_each(user_id, deque(rooms[:MAX_AWAITED_ROOMS]))
        if len(rooms) > MAX_AWAITED_ROOMS:
            self._renew_later(user_id, rooms[MAX_AWAITED_ROOMS:])

    async def stop(self) -> None:
        """Renew no more; returns when nothing is under way."""
        for waiting in self._waiting.values():
            waiting.clear()
        for running in list(self._running.values()):
            await running

    def _renew_later(self, user_id: str, rooms: list[int]) -> None:
        waiting = self._waiting.get(user_id)
        if waiting is not None:
            # The run that is under way begins anew, with the newest profile.
            waiting.clear()
            waiting.extend(rooms)
            return
        self._waiting[user_id] = waiting = deque(rooms)
        done: Deferred[None] = ensureDeferred(self._renew_each(user_id, waiting))
        self._running[user_id] = done
        done.addBoth(self._ended, user_id)

    def _ended(self, result: Any, user_id: str) -> Any:
        del self._waiting[user_id], self._running[user_id]
        return result

    async def _renew_each(self, user_id: str, rooms: deque[int]) -> None:
        """Renew the member events in these rooms, and take each room off the list."""
        while rooms:
            number = rooms.popleft()
            try:
                (room_id,) = await self._rooms.room_ids([number])
                await self._renew(user_id, room_id)
            except Unavailable as error:
                log.warn(
                    "could not renew member events of {user_id}: {error}",
                    user_id=user_id,
                    error=error,
                )
                rooms.clear()
            except MatrixError as error:
                log.info(
                    "room {number} did not take the new profile of {user_id}: {error}",
                    number=number,
                    user_id=user_id,
                    error=error,
                )
            except Exception:
                log.failure("could not renew the member event of {user_id}", user_id=user_id)

    async def _renew(self, user_id: str, room_id: str) -> None:
        while True:
            profile = await self._profiles.member_fields(user_id)

            def decide(writer: RoomWriter, profile: dict[str, str] = profile) -> EventDraft | None:
                return renewed(writer.current((MEMBER, user_id)), profile)

            await change_state(self._rooms, room_id, decide)
            # What was read before the wait may have changed meanwhile, and been written first.
            if await self._profiles.member_fields(user_id) == profile:
                return


def renewed(member: StoredEvent | None, profile: dict[str, str]) -> EventDraft | None:
    """The member event of a joined user with this profile in it; `None` where nothing is to do."""
    if member is None:
        return None
    content = member.shown.content
    if content.get("membership") != "join":
        return None
    known = {field: content[field] for field in PROFILE_FIELDS if field in content}
    if known == profile:
        return None
    kept = {key: value for key, value in content.items() if key not in PROFILE_FIELDS | OF_THE_JOIN}
    user_id = member.event.state_key
    assert user_id is not None
    return member_draft(user_id, user_id, {**kept, **profile})
