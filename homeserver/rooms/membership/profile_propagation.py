"""Profile propagation: a user's new name or avatar is put into their member events.

Every joined room gets a member event like the present one, with the new profile in it. The request
that changed the profile gets its response when the first `MAX_AWAITED_ROOMS` rooms have theirs. A
durable reader of the log renews all rooms, one after the other, in the order in which this server
first saw them: so nothing is lost if the server stops in between.

A room whose rules forbid it is skipped. If the profile changes again while rooms are waiting, they
get the newest one, and only once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#events-on-change-of-profile-information
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME, ProfileChanged
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.event_draft import SERVER_FIELDS, EventDraft, member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.membership.server_state_changes import change_state
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.accounts.profiles import profile_changes_between
from homeserver.storage.database.database import Database
from homeserver.streams.durable_reader import ItemPage

MAX_AWAITED_ROOMS = 20
PAGE_CHANGES = 500
PROFILE_FIELDS = frozenset({DISPLAYNAME, AVATAR_URL})
# These describe the moment at which the user joined, not the user.
OF_THE_JOIN = SERVER_FIELDS | {"reason"}
log = Logger()


class MemberProfileChanged(msgspec.Struct, frozen=True):
    """A local user changed a field of their profile that is in their member events."""

    position: int
    user_id: str


class MemberProfileChanges:
    """The changes of profiles that member events contain."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, entries: Sequence[Any]) -> Iterator[MemberProfileChanged]:
        """The changes in log entries."""
        for entry in entries:
            if isinstance(entry, ProfileChanged) and entry.field in PROFILE_FIELDS:
                yield MemberProfileChanged(entry.position, entry.user_id)

    async def load(self, after: int, upto: int) -> ItemPage[MemberProfileChanged]:
        """A page of the changes in the database, of each field the newest one."""
        rows = await self._db.run(
            profile_changes_between, after, upto, sorted(PROFILE_FIELDS), PAGE_CHANGES
        )
        changes = [MemberProfileChanged(*row) for row in rows]
        return ItemPage(changes, upto if len(rows) < PAGE_CHANGES else rows[-1][0])


class ProfilePropagation:
    """Renews member events. `check_running()` raises when the server stops."""

    def __init__(
        self,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        profiles: MemberProfiles,
        check_running: Callable[[], None],
    ) -> None:
        self._check_running = check_running
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._profiles = profiles
        self._locks: KeyedLocks[tuple[str, str]] = KeyedLocks()  # by user and room
        self._renewing: set[str] = set()  # users
        self._changed_again: set[str] = set()  # of them, since the present run began

    async def profile_changed(self, user_id: str, field: str) -> None:
        """Renew the member events for which a request waits, if they contain this field."""
        if field not in PROFILE_FIELDS:
            return
        rooms = sorted(await self._user_rooms.joined(user_id))
        try:
            await self._renew_each(user_id, rooms[:MAX_AWAITED_ROOMS])
        except Unavailable as error:
            # The profile is stored, and its member events follow.
            log.info("member events of {user_id} wait: {error}", user_id=user_id, error=error)

    async def renew_all(self, change: MemberProfileChanged) -> None:
        """Renew all member events of a user. Raises `Unavailable`, and what `check_running` raises.

        Returns at once where it is in progress for an earlier change of this user, which is not
        handled before the newest profile is everywhere.
        """
        user_id = change.user_id
        if user_id in self._renewing:
            self._changed_again.add(user_id)
            return
        self._renewing.add(user_id)
        try:
            is_newest = False
            while not is_newest:
                self._changed_again.discard(user_id)
                await self._renew_each(user_id, sorted(await self._user_rooms.joined(user_id)))
                is_newest = user_id not in self._changed_again
        finally:
            self._renewing.discard(user_id)
            self._changed_again.discard(user_id)

    async def _renew_each(self, user_id: str, rooms: Sequence[int]) -> None:
        for room_nid in rooms:
            self._check_running()
            try:
                (room_id,) = await self._rooms.room_ids([room_nid])
                await self._renew(user_id, room_id)
            except Unavailable:
                raise
            except MatrixError as error:
                log.info(
                    "the room with nid {room_nid} rejected the new profile of {user_id}: {error}",
                    room_nid=room_nid,
                    user_id=user_id,
                    error=error,
                )
            except Exception:
                log.failure("could not renew the member event of {user_id}", user_id=user_id)

    async def _renew(self, user_id: str, room_id: str) -> None:
        # The request and the reader renew the same rooms, and a room may have each event signed
        # by its policy server: the second one finds nothing to do.
        async with self._locks.hold((user_id, room_id)):
            await self._renew_alone(user_id, room_id)

    async def _renew_alone(self, user_id: str, room_id: str) -> None:
        while True:
            profile = await self._profiles.member_fields(user_id)

            def decide(writer: RoomWriter, profile: dict[str, str] = profile) -> EventDraft | None:
                return renewed(writer.current((MEMBER, user_id)), profile)

            await change_state(self._rooms, room_id, decide)
            # Another run may have read newer values meanwhile, and written them first.
            if await self._profiles.member_fields(user_id) == profile:
                return


def renewed(member: StoredEvent | None, profile: dict[str, str]) -> EventDraft | None:
    """The member event of a joined user with this profile in it; `None` if it has it already."""
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
