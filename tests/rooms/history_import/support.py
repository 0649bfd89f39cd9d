"""A test case with a room, a bridge that may import history into it, and its ghosts."""

from collections.abc import Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.events.imported_events import OldMessage
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import Importer, ImportRequest
from homeserver.streams.counters import Counters
from tests.rooms.support import ALICE, SERVER, RoomsTestCase

BRIDGE = Requester(f"@bridge:{SERVER}", None)
GHOST = f"@ghost_1:{SERVER}"


class FakeImporter:
    """An application service with the users `@bridge` and `@ghost_…`."""

    id = "bridge"

    def covers_user(self, user_id: str) -> bool:
        return user_id == BRIDGE.user_id or user_id.startswith("@ghost_")


def find_importer(caller: Requester) -> Importer | None:
    """The bridge, for its own user alone."""
    return FakeImporter() if caller.user_id == BRIDGE.user_id else None


def permit_imports(server: Any) -> None:
    """Have a server take the user `@bridge` for an application service that may import."""

    def find(caller: Requester) -> Importer | None:
        return FakeImporter() if caller.user_id.startswith("@bridge:") else None

    server.parts.appservices.history_import._find_importer = find


def old(text: str, timestamp: int = 1_000, sender: str = GHOST, **more: Any) -> OldMessage:
    """An old text message."""
    content = {"msgtype": "m.text", "body": text}
    return OldMessage("m.room.message", sender, content, timestamp, **more)


def chosen(name: str) -> str:
    """An event id as a bridge chooses it."""
    return f"${name}:chat.example.com"


class ImportTestCase(RoomsTestCase):
    """A room that the bridge made, in which Alice is."""

    async def setUp(self) -> None:
        await super().setUp()
        self.room_id = await self.create_room(BRIDGE)
        await self.memberships.join(ALICE, self.room_id)

    def build(self, counters: Counters) -> None:
        super().build(counters)
        self.receipts = Receipts(self.db, self.log, self.names)
        self.log.subscribe(self.receipts.apply)
        self.imports = HistoryImport(self.db, self.rooms, self.receipts, find_importer)

    async def put(self, *messages: OldMessage | str, **options: Any) -> list[str]:
        """Import messages; gives their event ids."""
        made = [old(each) if isinstance(each, str) else each for each in messages]
        return await self.imports.insert(BRIDGE, self.room_id, ImportRequest(made, **options))

    async def all(
        self,
        reader: Requester = ALICE,
        *,
        backwards: bool = False,
        since: str | None = None,
        limit: int = 7,
    ) -> list[str]:
        """The texts of all messages that a reader pages through, oldest first."""
        return _texts(await self.pages(reader, backwards=backwards, since=since, limit=limit))

    async def pages(
        self,
        reader: Requester = ALICE,
        *,
        backwards: bool = False,
        since: str | None = None,
        limit: int = 7,
    ) -> list[Any]:
        """All events that a reader pages through, oldest first."""
        found: list[Any] = []
        while True:
            ask = PageRequest(backwards, since, limit=limit)
            page = await self.history.page(reader.user_id, self.room_id, ask)
            found += [seen.stored for seen in page.chunk]
            since = page.end
            if since is None:
                return found[::-1] if backwards else found


def _texts(events: Sequence[Any]) -> list[str]:
    return [each.shown.content["body"] for each in events if "body" in each.shown.content]
