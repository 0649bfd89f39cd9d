"""Searches of the room directory, as clients and other servers send them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from typing import Annotated

import msgspec

from homeserver.rooms.discovery.directory import DirectoryQuery

Limit = Annotated[int, msgspec.Meta(ge=0)]


class RoomsFilter(msgspec.Struct):
    """The conditions of a search."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRoomsSearch(msgspec.Struct):
    """The conditions of a search, and the page of its result."""

    limit: Limit | None = None
    since: str | None = None
    filter: RoomsFilter = msgspec.field(default_factory=RoomsFilter)
    include_all_networks: bool = False
    third_party_instance_id: str | None = None

    def query(self) -> DirectoryQuery:
        """The query for the directory."""
        return DirectoryQuery(
            self.limit,
            self.since,
            self.filter.generic_search_term,
            self.filter.room_types,
            self.include_all_networks,
            self.third_party_instance_id or None,
        )
