"""A search as a user requests it, and the token of its next page.

A page of results ordered by time continues below the last one. For the order by rank, the newest
results are ranked among each other, a *block* of bounded size; a page continues within the block,
and after its last result with the block of the next older ones. A token names the newest event that
the index had when the search began: later ones are left out, so no page loses or repeats a result
because messages arrive.

A token is not secret: it narrows what its holder may search.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from typing import Annotated, Final

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.filters import RoomEventFilter
from homeserver.protocol.search.search_term import SearchTerm
from homeserver.protocol.search.searchable import TYPE_OF_KEY, SearchKey

DEFAULT_LIMIT = 10
MAX_LIMIT = 100  # results of a page
MAX_TOKEN = 1_024  # characters

Number = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Place = tuple[Number, Number]  # (sent_at, event)
FIRST: Final = (-(1 << 63), -(1 << 63))


class SearchToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page continues: in the block of entries with `since <= place < before`.

    `after` is the rank and place of the last result of the page before, if it was in this block.
    `is_last` says that there are no blocks of older entries. `shown` are the results of all pages
    before, `count` is as in the last response. A token of a group has its `room_id` or `sender`.
    """

    by_rank: bool
    newest: Number
    before: Place
    since: Place = FIRST
    is_last: bool = False
    after: tuple[float, Number, Number] | None = None
    shown: Count = 0
    count: Count = 0
    room_id: str | None = None
    sender: str | None = None

    def encode(self) -> str:
        """The token for the client."""
        return urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")


def parse_search_token(text: str) -> SearchToken:
    """The token that a client sent. Raises `InvalidParam`."""
    try:
        if len(text) > MAX_TOKEN:
            raise ValueError("too long")
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        return msgspec.msgpack.decode(packed, type=SearchToken)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidParam("Not a token of this server's search") from None


class SearchRequest(msgspec.Struct, frozen=True):
    """The wanted results: events that the term finds by one of the keys, and that pass the filter.

    `token` is that of the page, `None` for the first one.
    """

    term: SearchTerm
    keys: Collection[SearchKey]
    event_filter: RoomEventFilter
    by_rank: bool
    token: SearchToken | None = None

    @property
    def limit(self) -> int:
        """The maximum number of results of the page."""
        return self.event_filter.limit_or(DEFAULT_LIMIT, MAX_LIMIT)

    @property
    def wanted_keys(self) -> list[SearchKey]:
        """The keys whose events can pass the filter, as far as it is about types."""
        types = RoomEventFilter(
            types=self.event_filter.types, not_types=self.event_filter.not_types
        )
        return [key for key in self.keys if types.matches(TYPE_OF_KEY[key], None, {})]
