"""A search of the room directory, as clients and other servers ask for it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from typing import Annotated

import msgspec

from homeserver.rooms.discovery.directory import DirectoryQuery

Limit = Annotated[int, msgspec.Meta(ge=0)]


class RoomsFilter(msgspec.Struct):
    """Which rooms are wanted."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRoomsSearch(msgspec.Struct):
    """Which rooms are wanted, and which page of them."""

    limit: Limit | None = None
    since: str | None = None
    filter: RoomsFilter = msgspec.field(default_factory=RoomsFilter)
    include_all_networks: bool = False
    third_party_instance_id: str | None = None

    def query(self) -> DirectoryQuery:
        """What the directory is asked."""
        return DirectoryQuery(
            self.limit,
            self.since,
            self.filter.generic_search_term,
            self.filter.room_types,
            self.include_all_networks,
            self.third_party_instance_id or None,
        )
