"""Shared answers: new events of one room and nothing else, as most readers get them.

What all members have in common is made once: the events, and the result of the room with its JSON.
Here everything in which readers may differ is compared, without waiting; who has other news, sees
the events in another way, or asks for more, gets an answer that `Responses` makes for them alone.

What is shared cannot have anything of one reader. Its events come from a slice in which all of
them are shown as to any other member, and which is used only by readers who were members of the
room all the time, who sent none of the events (so there is no transaction id), who ignore none of
the senders, and who need no member event of these. Its numbers of unread events are part of its
key. Everything else of a reader (receipts, who types, account data, messages to the device,
changes of their membership) makes another change in the user's queue or in the room, and then
nothing is shared.

Spec: MSC4186
"""

from collections.abc import Mapping
from typing import Final

from homeserver.protocol.sliding_sync.request import MAX_TIMELINE_LIMIT, SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import NO_RESULTS, RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.streams.log import Log
from homeserver.sync.sections.shared_sections import RoomNews
from homeserver.sync.sliding.connection import (
    LIVE,
    NEVER,
    OfferedState,
    ScopedRoom,
    SentRoom,
    SlidingConnection,
)
from homeserver.sync.sliding.response_draft import Answer
from homeserver.sync.sliding.room_lists import RoomLists
from homeserver.sync.sliding.room_reading import Sections
from homeserver.sync.sliding.shared_results import shared_result
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.user_change_queues import SUBSCRIPTIONS, USER_DATA, UserChangeQueue

NOTHING_CHANGED: Final[Mapping[int, SentRoom]] = {}


class SharedAnswers:
    """Finds the answers that are shared."""

    def __init__(
        self, log: Log, user_rooms: UserRooms, lists: RoomLists, sections: Sections
    ) -> None:
        self._log = log
        self._user_rooms = user_rooms
        self._lists = lists
        self._sections = sections.shared
        self._lazy_members = sections.lazy_members
        self._unread = sections.unread

    def find(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        connection: SlidingConnection,
        queue: UserChangeQueue,
    ) -> Answer | None:
        """What is new for a connection; `None` if that has to be made for it alone."""
        state = connection.state
        scope, token, body = state.settled, state.token, request.body
        if (
            scope is None
            or token is None
            or token.ahead
            or scope.body is not body
            or not body.extensions.are_of_rooms
        ):
            return None
        since = token.base
        nid = queue.only_change_since(since)
        if nid is None or not USER_DATA < nid < SUBSCRIPTIONS:
            return None
        rooms, now = self._user_rooms.loaded(reader.user_id), self._log.seen.snapshot().even
        scoped, sent = scope.rooms.get(nid), state.rooms.get(nid)
        if rooms is None or now is None or scoped is None or sent is None:
            return None
        place = rooms.get(nid)
        if (
            place is None
            or place.membership != "join"
            or place.position > since
            or not _is_sent_as_before(sent, scoped)
            or self._lists.scope_after(scope, (nid,)) is not scope
        ):
            return None
        news = self._sections.news(nid, since, now.base)
        result = None if news is None else self._result(news, request, reader, scoped)
        if news is None or result is None:
            return None
        offered = OfferedState(
            now,
            _sent_after(nid, sent, scoped.config, len(news.timeline.events)),
            state.e2ee,
            state.account_data if body.extensions.account_data is None else now,
            scope,
            state.threads,
            state.profiles,
        )
        return Answer(scope.counts, {news.room.room_id: result}, NO_RESULTS, offered, True, True)

    def _result(
        self, news: RoomNews, request: SlidingSyncRequest, reader: SyncRequest, scoped: ScopedRoom
    ) -> RoomResult | None:
        """The result of a room for a reader, if they see its news as all others do."""
        room, shared, config = news.room, news.timeline, scoped.config
        num_events = len(shared.events)
        if (
            shared.changes_state
            or shared.redacts
            or num_events > config.timeline_limit
            or not shared.is_alike_for(reader)
        ):
            return None
        if config.lazy_members:
            room_nid, since, _ = news.span
            if self._lazy_members.unsent(reader, room_nid, shared.senders, since):
                return None
        count = None
        if request.body.has_counts:
            count = self._unread.cached(room, reader.user_id)
            if count is None:
                return None
        return shared_result(shared, num_events, count, scoped.lists)


def _is_sent_as_before(sent: SentRoom, scoped: ScopedRoom) -> bool:
    """Whether a client, which has all that it wants of a room, is sent no less than before."""
    return (
        (sent.config is scoped.config or sent.config == scoped.config)
        and (scoped.receipts or sent.receipts != LIVE)
        and (scoped.typing or sent.typing != LIVE)
        and sent.profiles == NEVER
    )


def _sent_after(
    nid: int, sent: SentRoom, config: RoomConfig, num_events: int
) -> Mapping[int, SentRoom]:
    """What a connection has of a room after so many new events, if that is another thing."""
    limit = min(sent.limit + num_events, MAX_TIMELINE_LIMIT)
    if limit == sent.limit:
        return NOTHING_CHANGED
    upto, receipts, typing, account_data, _, is_dm, _, _ = sent
    return {nid: SentRoom(upto, receipts, typing, account_data, limit, is_dm, config)}
