"""Server-side search of messages, room names and topics, on behalf of users.

The index gives candidates, a block at a time; of these, as many are checked as the page needs, and
some more for the count. Neither results nor count nor highlights tell of events that the user may
not see.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.search.signatures import wanted_numbers
from homeserver.search.found_events import FoundEvent, FoundEvents
from homeserver.search.index_search import EntryQuery, IndexSearch, SearchEntry
from homeserver.search.indexed_events import IndexSource
from homeserver.search.room_scope import RoomScope
from homeserver.search.search_request import FIRST, SearchRequest, SearchToken
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.search.stored_texts import newest_event
from homeserver.streams.log import Log

BLOCK = 300  # candidates that are ranked among each other
MAX_EXAMINED = 1_000  # candidates that are checked for one page
MAX_SECONDS = 3.0  # after which a page ends with what was found
COUNTED = 100  # candidates that are checked for the count
CHUNK = 50  # candidates that are checked together


class SearchPage(msgspec.Struct, frozen=True):
    """A page of results, in their order; `count` is a lower bound of all of them.

    `next` is where the next page continues, `None` if there are no more results.
    """

    results: Sequence[FoundEvent] = ()
    count: int = 0
    next: SearchToken | None = None


class _Walk(msgspec.Struct):
    """A walk through the candidates, and what it has found so far.

    `token` is where it is, `end` where the page ends, once that is full. `further` results come
    after it.
    """

    caller: Requester
    ignored: frozenset[str]
    request: SearchRequest
    query: EntryQuery
    token: SearchToken
    results: list[FoundEvent] = msgspec.field(default_factory=list)
    examined: int = 0
    further: int = 0
    end: SearchToken | None = None

    @property
    def is_over(self) -> bool:
        """Whether enough was checked."""
        return self.examined >= (MAX_EXAMINED if self.end is None else COUNTED)


class EventSearch:
    """Searches on behalf of users."""

    def __init__(
        self,
        db: Database,
        log: Log,
        clock: Clock,
        names: Names,
        account_data: AccountData,
        scope: RoomScope,
        index: IndexSearch,
        source: IndexSource,
        found_events: FoundEvents,
    ) -> None:
        self._db = db
        self._log = log
        self._clock = clock
        self._names = names
        self._account_data = account_data
        self._scope = scope
        self._index = index
        self._source = source
        self._found_events = found_events

    async def page(self, caller: Requester, request: SearchRequest) -> SearchPage:
        """A page of results. Raises `Unavailable` if nothing could be searched in time."""
        if request.term.is_empty or not request.wanted_keys or not request.limit:
            return SearchPage()
        ignored = await self._account_data.ignored_users(caller.user_id)
        token = request.token or SearchToken(
            by_rank=request.by_rank,
            newest=await self._db.run(newest_event),
            before=(self._log.position + 1, 0),
        )
        query = await self._query(caller.user_id, ignored, request, token)
        if query is None:
            return SearchPage()
        walk = _Walk(caller, ignored, request, query, token)
        is_at_end = False
        deadline = self._clock.seconds() + MAX_SECONDS
        while True:
            try:
                is_at_end = await self._search_block(walk)
            except Unavailable:
                if walk.token is token:
                    raise
                break  # the page ends with what was found
            if is_at_end or walk.is_over or self._clock.seconds() >= deadline:
                break
        shown = token.shown + len(walk.results)
        count = max(token.count, shown + walk.further)
        if is_at_end and not walk.further:
            return SearchPage(walk.results, count)
        following = walk.token if walk.end is None else walk.end
        following = msgspec.structs.replace(following, shown=shown, count=count)
        return SearchPage(walk.results, count, following)

    async def _search_block(self, walk: _Walk) -> bool:
        """Check a block of candidates; returns whether there are no more."""
        token = walk.token
        query = replace(walk.query, before=token.before, since=token.since)
        found = await self._index.find(query, BLOCK)
        entries = list(found.entries)
        if token.by_rank:
            if token.since == FIRST and not token.is_last:
                since = FIRST if found.until is None else found.until
                token = msgspec.structs.replace(token, since=since, is_last=found.until is None)
            while found.until is not None and found.until > token.since:
                # The block was found before: it is ranked as a whole again.
                found = await self._index.find(replace(query, before=found.until), BLOCK)
                entries += found.entries
            entries = await self._ranked(walk.request, entries)
            if token.after is not None:
                after = _rank_order_of(*token.after)
                entries = [entry for entry in entries if _rank_order(entry) > after]
        is_last = token.is_last if token.by_rank else found.until is None
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            await self._check(walk, token, chunk)
            if walk.is_over and (not is_last or start + CHUNK < len(entries)):
                return False
        if token.by_rank:
            # The block is done: the next one has what is older.
            walk.token = msgspec.structs.replace(
                token, before=token.since, since=FIRST, after=None, is_last=False
            )
        elif found.until is not None:
            walk.token = msgspec.structs.replace(walk.token, before=found.until)
        return is_last

    async def _ranked(
        self, request: SearchRequest, entries: Sequence[SearchEntry]
    ) -> list[SearchEntry]:
        """Those of the entries whose texts have the words, the best first."""
        texts = await self._source.texts([entry.event for entry in entries])
        ranked = (
            replace(entry, rank=request.term.rank(texts[entry.event].text))
            for entry in entries
            if entry.event in texts
        )
        found = await build_cooperatively(self._clock, ranked, every=1)
        return sorted((entry for entry in found if entry.rank), key=_rank_order)

    async def _check(self, walk: _Walk, token: SearchToken, entries: Sequence[SearchEntry]) -> None:
        """Check the next candidates, and note how far the walk has come."""
        results = await self._found_events.visible(walk.caller, walk.ignored, walk.request, entries)
        walk.examined += len(entries)
        for result in results:
            if walk.end is not None:
                walk.further += 1
                continue
            walk.results.append(result)
            if len(walk.results) == walk.request.limit:
                walk.end = _token_after(token, result.entry)
        walk.token = _token_after(token, entries[-1])

    async def _query(
        self, user_id: str, ignored: frozenset[str], request: SearchRequest, token: SearchToken
    ) -> EntryQuery | None:
        """The query for the index; `None` if it can find nothing."""
        event_filter = request.event_filter
        rooms = await self._scope.of(user_id, event_filter)
        wanted = event_filter.senders
        excluded = event_filter.not_senders
        groups = [name for name in (token.room_id, token.sender) if name is not None]
        nids = await self._names.find_nids({*(wanted or ()), *excluded, *ignored, *groups})
        senders = None if wanted is None else {nids[each] for each in wanted if each in nids}
        if token.room_id is not None:
            rooms = [nid for nid in rooms if nid == nids.get(token.room_id)]
        if token.sender is not None:
            group = {nids[token.sender]} if token.sender in nids else set()
            senders = group if senders is None else senders & group
        if not rooms or (senders is not None and not senders):
            return None
        return EntryQuery(
            numbers=wanted_numbers(request.term.index_tokens()),
            rooms=rooms,
            keys=request.wanted_keys,
            newest=token.newest,
            before=token.before,
            since=token.since,
            senders=senders,
            not_senders={nids[each] for each in excluded if each in nids},
            ignored={nids[each] for each in ignored if each in nids},
            has_url=event_filter.contains_url,
        )


def _token_after(token: SearchToken, entry: SearchEntry) -> SearchToken:
    """The token to continue after an entry."""
    if token.by_rank:
        after = (entry.rank, entry.sent_at, entry.event)
        return msgspec.structs.replace(token, after=after)
    return msgspec.structs.replace(token, before=entry.place)


def _rank_order(entry: SearchEntry) -> tuple[float, int, int]:
    return _rank_order_of(entry.rank, entry.sent_at, entry.event)


def _rank_order_of(rank: float, sent_at: int, event: int) -> tuple[float, int, int]:
    """A key that sorts the highest rank first, and the newest event of a rank."""
    return -rank, -sent_at, -event
