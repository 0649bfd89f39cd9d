"""The cache of devices: what changes while it is being read must not stay as it was."""

from typing import Any, cast

from twisted.internet.defer import Deferred

from homeserver.encryption.changes import DeviceListChanged
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.storage.encryption.device_keys import DeviceRow

ALICE, BOB = "@alice:example.org", "@bob:example.org"


class SlowDatabase:
    """Answers when the test says so, with one device for each user."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Deferred[None], list[str]]] = []

    async def run(self, read: Any, user_ids: list[str]) -> Any:
        answered: Deferred[None] = Deferred()
        self._waiting.append((answered, user_ids))
        await answered
        return await read(_Connection(), user_ids)

    def answer(self, place: int) -> None:
        """Let one of the queries end."""
        self._waiting.pop(place)[0].callback(None)


class _Connection:
    """A connection on which each user has one device, and nothing else is stored."""

    async def execute(self, sql: str, parameters: tuple[list[str], ...]) -> "_Cursor":
        if "FROM devices" in sql:
            return _Cursor([DeviceRow(each, "PHONE", None, None) for each in parameters[0]])
        return _Cursor([])


class _Cursor:
    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    async def fetchall(self) -> list[Any]:
        return self._rows


class _LocalServer:
    def is_local(self, user_id: str) -> bool:
        return True


def test_a_list_that_changed_while_it_was_read_is_not_kept() -> None:
    """Also if the list of another user is read at the same time, and that ends first."""
    db = SlowDatabase()
    directory = DeviceDirectory(cast("Any", db), cast("Any", _LocalServer()))
    loads = [Deferred.fromCoroutine(directory.of(each)) for each in (ALICE, BOB)]

    db.answer(1)
    directory.apply([DeviceListChanged(1, ALICE, (), "TABLET", 1, None)])
    db.answer(0)

    found: list[Any] = []
    for load in loads:
        load.addBoth(found.append)
    assert [list(devices.devices) for devices in found] == [["PHONE"], ["PHONE"]]
    assert directory.find(BOB) is not None
    assert directory.find(ALICE) is None
