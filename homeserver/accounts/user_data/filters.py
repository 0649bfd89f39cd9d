"""Filters: stored once for each content, and cached in parsed form.

Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from hashlib import sha256
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import BadJson, InvalidParam, NotFound, UserLimitExceeded
from homeserver.protocol.filters import Filter, parse_filter
from homeserver.storage.accounts.filters import find_filter, store_filter
from homeserver.storage.database.database import Database

MAX_CACHED = 2_000  # filters
MAX_CONTENT_BYTES = 65_536
MAX_OF_USER = 1_000  # filters; the same one counts once


class Filters:
    """The filters of local users."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._parsed: LruCache[tuple[str, str], Filter] = LruCache("filters", MAX_CACHED)

    async def define(self, user_id: str, content: dict[str, Any]) -> str:
        """Store a filter and return its id. Raises `BadJson`, and `UserLimitExceeded`."""
        parse_filter(content)
        encoded = msgspec.json.encode(content, order="deterministic")
        if len(encoded) > MAX_CONTENT_BYTES:
            raise BadJson(f"A filter must not exceed {MAX_CONTENT_BYTES} bytes")
        number = await self._db.run(
            store_filter, user_id, sha256(encoded).digest(), encoded, MAX_OF_USER
        )
        if number is None:
            raise UserLimitExceeded(f"A user has at most {MAX_OF_USER} filters")
        return str(number)

    async def get(self, user_id: str, filter_id: str) -> bytes:
        """The filter that a user stored under an id, as JSON. Raises `NotFound`."""
        number = int(filter_id) if filter_id.isascii() and filter_id.isdigit() else 0
        content = None
        if 0 < number < 2**63:
            content = await self._db.run(find_filter, user_id, number)
        if content is None:
            raise NotFound("No such filter")
        return content

    async def find(self, user_id: str, text: str) -> Filter:
        """The filter that a request names by its id, or contains as JSON.

        Raises `InvalidParam` for invalid JSON, `BadJson`, and `NotFound`.
        """
        # An inline filter is the same for all users.
        key = ("", text) if text.startswith("{") else (user_id, text)
        parsed = self._parsed.get(key)
        if parsed is not None:
            return parsed
        content = text.encode() if not key[0] else await self.get(user_id, text)
        try:
            parsed = parse_filter(msgspec.json.decode(content))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidParam("The filter is not JSON") from None
        if len(content) <= MAX_CONTENT_BYTES:
            self._parsed.put(key, parsed)
        return parsed
