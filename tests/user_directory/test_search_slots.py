"""Many searches at a time leave the database to others."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import LimitExceeded
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.user_directory.search import UserSearch

SLOTS = 3
WAITING = 5  # of one user


class SlowDatabase:
    """A database whose statements end when the test says so."""

    def __init__(self) -> None:
        self.running: list[Deferred[list[Any]]] = []

    async def run(self, *_: Any) -> list[Any]:
        """Wait."""
        statement: Deferred[list[Any]] = Deferred()
        self.running.append(statement)
        return await statement


class NoRooms:
    """Users and names of a server without rooms."""

    async def of(self, _: str) -> Mapping[int, Any]:
        """No room."""
        return {}

    async def find_nid(self, _: str) -> int:
        """Some number."""
        return 1


@pytest.fixture
def db() -> SlowDatabase:
    """A database."""
    return SlowDatabase()


@pytest.fixture
def search(db: SlowDatabase) -> UserSearch:
    """The search in it."""
    nothing = NoRooms()
    return UserSearch(
        cast(Database, db),
        cast(Names, nothing),
        cast(UserRooms, nothing),
        "example.org",
        slots=SLOTS,
        is_enabled=True,
        all_users=False,
    )


def start(search: UserSearch, user_id: str) -> "Deferred[Any]":
    """Begin a search."""
    return Deferred.fromCoroutine(search.search(user_id, "@al", 10))


def test_user_has_one_search_at_a_time(search: UserSearch, db: SlowDatabase) -> None:
    """However quickly they type; what is too much is refused at once."""
    searches = [start(search, "@alice:example.org") for _ in range(1 + WAITING + 1)]

    assert len(db.running) == 1
    searches.pop().addErrback(lambda failure: failure.trap(LimitExceeded))
    for _ in searches:
        db.running.pop().callback([])
    assert all(each.called for each in searches)
    assert db.running == []


def test_all_users_together_have_few(search: UserSearch, db: SlowDatabase) -> None:
    """A thousand users who type leave connections for log-ins."""
    searches = [start(search, f"@user{number}:example.org") for number in range(1_000)]

    assert len(db.running) == SLOTS
    refused: list[Any] = []
    for each in searches:
        each.addErrback(lambda failure: refused.append(failure.trap(LimitExceeded)))
    assert len(refused) == 1_000 - SLOTS - 500
    while db.running:
        db.running.pop().callback([])
    assert all(each.called for each in searches)
