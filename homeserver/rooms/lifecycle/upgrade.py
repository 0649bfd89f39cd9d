"""Room upgrades: a room is replaced by one of another version.

The new room with all its first state, the tombstone of the old one, and the migration of aliases
and the directory entry are stored together: either a room is replaced, or nothing has happened.
Only then the old room's power levels are restricted, if the upgrading user may do that.

Power levels are set last, because the user who creates the new room may do anything in it until
then, even if they are only a moderator afterwards, as they were before.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.errors import InvalidParam, MatrixError, UnsupportedRoomVersion
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import (
    CANONICAL_ALIAS,
    CANONICAL_ALIAS_KEY,
    CREATE,
    CREATE_KEY,
    GUEST_ACCESS,
    GUEST_ACCESS_KEY,
    MEMBER,
    POWER_LEVELS,
    POWER_LEVELS_KEY,
    SPACE_CHILD,
    TOMBSTONE,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.lifecycle.upgrade_state import (
    CARRIED_TYPES,
    carried_create_content,
    carried_power_levels,
    may_carry,
    restricted_power_levels,
)
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.room.changes import RoomAliasesMoved
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.room_storage import EventsNotInMemory
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.room_aliases import MOVE_ALIASES
from homeserver.streams.log import Log

MAX_CARRIED = 2_000  # bans and space children: all are made in one reactor iteration
log = Logger()


class _Plan(msgspec.Struct, frozen=True):
    """The inputs of an upgrade, collected before it is made."""

    caller: Requester
    version: RoomVersion
    room_id: str
    create_content: dict[str, Any]
    member: dict[str, Any]
    additional_creators: Sequence[str]
    now_ms: int

    @property
    def tombstone(self) -> EventDraft:
        content = {"body": "This room has been replaced", "replacement_room": self.room_id}
        return EventDraft(
            TOMBSTONE,
            self.caller.user_id,
            content,
            state_key="",
            origin_server_ts=self.now_ms,
        )


class RoomUpgrades:
    """Upgrades rooms."""

    def __init__(
        self, log: Log, names: Names, rooms: RoomRegistry, profiles: MemberProfiles
    ) -> None:
        self._log = log
        self._names = names
        self._rooms = rooms
        self._origin = rooms.local_server
        self._profiles = profiles

    async def upgrade(
        self,
        caller: Requester,
        room_id: str,
        version_name: str,
        additional_creators: Sequence[str] = (),
    ) -> str:
        """Replace a room by one of this version, and return the new room's id.

        Raises `UnsupportedRoomVersion`, `NotFound` if the room does not exist, `Forbidden` for a
        user who may not send its tombstone, `InvalidParam` if an additional creator is not a user.
        """
        check_not_suspended(caller)
        version = ROOM_VERSIONS.get(version_name)
        if version is None:
            raise UnsupportedRoomVersion(
                f"This server does not support room version {version_name!r}"
            )
        creators: list[str] = []
        if version.creators_outrank_everyone:
            creators = _checked_creators(caller, additional_creators)
        async with self._rooms.writing(room_id) as old:
            # Banned users stay banned.
            await old.room.wait_for_full_state(self._origin.clock)
            plan = await self._plan(caller, old.room, version, creators)
            while True:
                try:
                    done = self._replace(old, plan)
                    break
                except NotInMemory as missing:
                    await missing.load()
            await done
            await self._close(caller, old)
        return plan.room_id

    async def _plan(
        self, caller: Requester, old: Room, version: RoomVersion, creators: Sequence[str]
    ) -> _Plan:
        create = (await self._rooms.current(old, [CREATE_KEY]))[CREATE_KEY].event
        member = {"membership": "join", **await self._profiles.member_fields(caller.user_id)}
        content = carried_create_content(version, create, caller.user_id, creators)
        now_ms = self._origin.now_ms()
        room_id = f"!{secrets.token_urlsafe(18)}:{self._origin.server_name}"
        if version.room_id_is_create_hash:
            room_id = self._create_event(caller, version, content, None, now_ms).room_id
        return _Plan(caller, version, room_id, content, member, creators, now_ms)

    def _create_event(
        self,
        caller: Requester,
        version: RoomVersion,
        content: dict[str, Any],
        room_id: str | None,
        now_ms: int,
    ) -> Event:
        draft = EventDraft(CREATE, caller.user_id, content, state_key="", origin_server_ts=now_ms)
        return self._origin.sign_event(version, draft, room_id=room_id)

    def _replace(self, old: RoomWriter, plan: _Plan) -> Deferred[None]:
        """Make the whole upgrade without yielding to the reactor; fires when it is durable."""
        drafts = self._first_drafts(old, plan)
        room_nid = self._room_nid(plan, drafts)
        # The create event names the tombstone, which names the room: so its id comes first.
        tombstone = old.preview(plan.tombstone)
        content, room_id = plan.create_content, None
        if not plan.version.room_id_is_create_hash:
            predecessor = {**content["predecessor"], "event_id": tombstone.event_id}
            content, room_id = {**content, "predecessor": predecessor}, plan.room_id
        create = self._create_event(plan.caller, plan.version, content, room_id, plan.now_ms)
        room = Room(room_nid, create.room_id, plan.version, EMPTY)
        number, position = self._log.next_event_number(), self._log.next_position()
        first = StoredEvent(create, number, position, EMPTY, EMPTY, stored_at=position)
        rows = [MOVE_ALIASES.row(old.room.room_nid, room.room_nid)]
        new = self._rooms.add_new(room)
        try:
            new.append(drafts, create=first, more_rows=rows)
        except BaseException:
            self._rooms.drop(room)
            raise
        _, done = old.append([plan.tombstone])
        done = self._log.append(
            RoomAliasesMoved(self._log.next_position(), old.room.room_nid, room.room_nid)
        )
        if old.room.published:
            new.set_published(published=True)
            done = old.set_published(published=False)
        return done

    def _first_drafts(self, old: RoomWriter, plan: _Plan) -> list[EventDraft]:
        """The events after the create event.

        Raises `NotInMemory` if old state must be loaded.
        """
        user_id = plan.caller.user_id
        drafts: list[EventDraft] = [member_draft(user_id, user_id, plan.member)]
        for stored in self._carried(old):
            event = stored.shown
            if may_carry(plan.version, event.content):
                drafts.append(_copied(event, user_id))
        if GUEST_ACCESS_KEY not in old.room.state:
            # Without the event this value is assumed; clients wait for the event in the new room.
            forbidden = {"guest_access": "forbidden"}
            drafts.append(EventDraft(GUEST_ACCESS, user_id, forbidden, state_key=""))
        create, levels = old.current(CREATE_KEY), old.current(POWER_LEVELS_KEY)
        if create is not None and levels is not None:
            content = carried_power_levels(
                plan.version,
                create.event,
                levels.shown.content,
                [user_id, *plan.additional_creators],
            )
            if may_carry(plan.version, content):
                drafts.append(_optional(EventDraft(POWER_LEVELS, user_id, content, state_key="")))
        return drafts

    def _carried(self, old: RoomWriter) -> list[StoredEvent]:
        """The state events of the old room that the new one gets."""
        room = old.room
        keys: list[StateKey] = [(event_type, "") for event_type in CARRIED_TYPES]
        children = [key for key in room.state if key[0] == SPACE_CHILD]
        bans = [(MEMBER, user) for user, place in room.members.items() if place == "ban"]
        if len(children) + len(bans) > MAX_CARRIED:
            log.warn(
                "{room} has too many bans and space children to copy all of them", room=room.room_id
            )
        keys += [*bans, *children][:MAX_CARRIED]
        found: list[StoredEvent] = []
        missing: list[int] = []
        for key in keys:
            try:
                stored = old.current(key)
            except EventsNotInMemory as error:
                missing += error.numbers
            else:
                # An event with empty content stands for removed state.
                if stored is not None and stored.shown.content:
                    found.append(stored)
        if missing:
            raise EventsNotInMemory(old.storage.events, room.version, missing)
        return found

    def _room_nid(self, plan: _Plan, drafts: Sequence[EventDraft]) -> int:
        """The new room's nid. Raises `NotInMemory` if names must be loaded first."""
        names = {plan.room_id, CREATE, "", plan.caller.user_id, TOMBSTONE}
        for draft in drafts:
            names |= {draft.type, draft.state_key or ""}
        cached_nid = self._names.cached_nid
        missing = [name for name in names if cached_nid(name) is None]
        room_nid = cached_nid(plan.room_id)
        if missing or room_nid is None:
            raise NotInMemory(partial(self._names.nids, names))
        return room_nid

    async def _close(self, caller: Requester, old: RoomWriter) -> None:
        """Restrict the power levels of the old room, and remove its alias, as far as allowed."""
        state = await self._rooms.current(
            old.room, [CREATE_KEY, POWER_LEVELS_KEY, CANONICAL_ALIAS_KEY]
        )
        closing: list[EventDraft] = []
        alias = state.get(CANONICAL_ALIAS_KEY)
        if alias is not None and alias.shown.content:
            closing.append(EventDraft(CANONICAL_ALIAS, caller.user_id, {}, state_key=""))
        if POWER_LEVELS_KEY in state:
            levels = await self._rooms.power_levels(old.room)
            content = restricted_power_levels(levels, state[POWER_LEVELS_KEY].shown.content)
            closing.append(EventDraft(POWER_LEVELS, caller.user_id, content, state_key=""))
        for draft in closing:
            try:
                await old.send(draft)
            except MatrixError as error:
                log.info(
                    "replaced {room}, but could not change its {type}: {error}",
                    room=old.room.room_id,
                    type=draft.type,
                    error=error,
                )


def _copied(event: Event, sender: str) -> EventDraft:
    """A state event of the old room, as a draft of the sender for the new one."""
    if is_member_event(event):
        return _optional(member_draft(sender, event.state_key or "", event.content))
    return _optional(EventDraft(event.type, sender, event.content, state_key=event.state_key))


def _optional(draft: EventDraft) -> EventDraft:
    """A draft that the new room gets if its rules allow it: those of the old one may differ."""
    return msgspec.structs.replace(draft, is_optional=True)


def _checked_creators(caller: Requester, user_ids: Sequence[str]) -> list[str]:
    for user_id in user_ids:
        if not is_valid_user_id(user_id):
            raise InvalidParam(f"{user_id!r} is not a user id")
    others = dict.fromkeys(user_ids)
    others.pop(caller.user_id, None)
    return list(others)
