"""A response while it is made, what the connection has of rooms after it, and the answer.

Spec: MSC4186
"""

from collections.abc import Collection, Mapping
from functools import lru_cache

import msgspec

from homeserver.protocol.filters import Filter, RoomEventFilter, RoomFilter
from homeserver.protocol.sliding_sync.request import MAX_TIMELINE_LIMIT, SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import ExtensionResults, RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.sync.sliding.connection import (
    LIVE,
    NEVER,
    NOTHING_SENT,
    ConnectionState,
    ListedScope,
    OfferedState,
    ScopedRoom,
    SentRoom,
)
from homeserver.sync.sliding.extensions import ExtensionUpdate
from homeserver.sync.sliding.room_reading import RoomReading
from homeserver.sync.sync_request import STATE_AFTER, SyncRequest
from homeserver.sync.sync_span import SyncSpan


class ResponseDraft(msgspec.Struct):
    """A response while it is made.

    `changed` is what changed for the user since the state, `None` where everything may have;
    `places` are the memberships of the rooms that may be looked at. `with_data` are the rooms with
    new account data, and `direct` the direct chats, if they may have changed. `entered` are the
    rooms in scope that were not, or not in the same way, in one of which the client has everything;
    `None` if there is no such scope. `sent` is what the connection has after the response, of the
    rooms where that changed; `requests` are those to `/sync` by what is different between configs;
    `is_complete` says whether it has all of the rooms that were asked for. `profiles` are the users
    of whom the rooms need whole profiles, and `profiled` those whose profiles it has or, with
    false, drops.
    """

    request: SlidingSyncRequest
    reader: SyncRequest
    state: ConnectionState
    span: SyncSpan
    changed: set[int] | None
    places: MemberRooms
    scope: ListedScope
    requests: dict[tuple[int, bool], SyncRequest]
    entered: Collection[int] | None = None
    direct: frozenset[int] | None = None
    with_data: set[int] = msgspec.field(default_factory=set)
    extensions: ExtensionUpdate = msgspec.field(default_factory=ExtensionUpdate)
    results: dict[str, RoomResult] = msgspec.field(default_factory=dict)
    sent: dict[int, SentRoom] = msgspec.field(default_factory=dict)
    is_complete: bool = True
    profiles: set[str] = msgspec.field(default_factory=set)
    profiled: dict[str, bool] = msgspec.field(default_factory=dict)

    def request_of(self, config: RoomConfig) -> SyncRequest:
        """The request to `/sync` for the rooms with a config."""
        key = config.timeline_limit, config.wants_all_members
        found = self.requests.get(key)
        if found is None:
            reader = self.reader
            found = self.requests[key] = SyncRequest(
                reader.caller,
                _filter(*key),
                False,
                STATE_AFTER,
                reader.ignored,
                reader.connection,
            )
        return found

    def note_sent(
        self, nid: int, reading: RoomReading, scoped: ScopedRoom, result: RoomResult | None
    ) -> None:
        """Note what the connection has of a room that was looked at."""
        before = reading.sent
        sent, config = before, scoped.config
        if reading.since is None:
            sent = NOTHING_SENT
        limit = _events_known(sent.limit, config.timeline_limit, result)
        after = self._sent_now(nid, sent, scoped)
        if (limit, reading.is_dm, config) != (after.limit, after.is_dm, after.config):
            after = after._replace(limit=limit, is_dm=reading.is_dm, config=config)
        if after is not before:
            self.sent[nid] = after

    def note_missed(self) -> None:
        """Note up to where the client has the rooms that it did not ask for now."""
        state, changed, scope = self.state, self.changed, self.scope.rooms
        if state.token is None:
            return
        nids: Collection[int] = state.rooms.keys()
        if changed is not None:
            nids = changed | self.with_data
        for nid in nids:
            sent = state.rooms.get(nid)
            if sent is not None and nid not in scope:
                self.sent[nid] = self._sent_now(nid, sent, ScopedRoom(sent.config), upto=False)

    def _sent_now(
        self, nid: int, sent: SentRoom, scoped: ScopedRoom, *, upto: bool = True
    ) -> SentRoom:
        """`sent` after a response with the given parts of a room that may have changed."""
        token = self.state.token
        at = NEVER if token is None else token.of_room(nid)

        def after(before: int, *, is_sent: bool) -> int:
            if is_sent:
                return LIVE
            return at if before == LIVE else before

        account_data = sent.account_data
        if scoped.account_data:
            account_data = LIVE
        elif nid in self.with_data:
            account_data = NEVER
        profiles = sent.profiles
        if scoped.profiles or profiles != NEVER:
            profiles = after(profiles, is_sent=scoped.all_profiles)
        now = (
            after(sent.upto, is_sent=upto),
            after(sent.receipts, is_sent=scoped.receipts),
            after(sent.typing, is_sent=scoped.typing),
            account_data,
        )
        if sent[:4] == now and sent.profiles == profiles:
            return sent
        return SentRoom(*now, sent.limit, sent.is_dm, sent.config, profiles)


class Answer(msgspec.Struct):
    """What a response has, and the state after it. `is_new` if it has anything new.

    A shared one (`SharedAnswers`) has news of a single room, which the client has already.
    """

    counts: Mapping[str, int]
    rooms: Mapping[str, RoomResult]
    extensions: ExtensionResults
    offered: OfferedState
    is_new: bool
    is_shared: bool = False


def _events_known(known: int, limit: int, result: RoomResult | None) -> int:
    """The number of newest events that a client has after a result: `SentRoom.limit`."""
    if result is None:
        return max(known, limit)
    if result.limited is True:
        return limit
    if result.initial is True:
        return MAX_TIMELINE_LIMIT  # all that there are
    if result.expanded_timeline is True:
        return max(known, limit)
    return min(max(known + len(result.event_ids), limit), MAX_TIMELINE_LIMIT)


@lru_cache(maxsize=256)
def _filter(timeline_limit: int, wants_all_members: bool) -> Filter:
    """The filter of `/sync` for rooms with such a config."""
    return Filter(
        room=RoomFilter(
            timeline=RoomEventFilter(limit=timeline_limit),
            state=RoomEventFilter(lazy_load_members=not wants_all_members),
        )
    )


def is_settled(sent: SentRoom, scoped: ScopedRoom) -> bool:
    """Whether the client has all that it wants of a room that has not changed."""
    return (
        sent.upto == LIVE
        and (sent.config is scoped.config or sent.config == scoped.config)
        and (sent.receipts == LIVE or not scoped.receipts)
        and (sent.typing == LIVE or not scoped.typing)
        and (sent.account_data == LIVE or not scoped.account_data)
        and (not scoped.profiles or sent.profiles == LIVE or scoped.config.lazy_profiles)
    )
