"""A homeserver without its sockets, for tests of sync: the domain objects on a real database."""

from typing import Any

import msgspec
from twisted.internet import reactor

from homeserver.accounts.sessions.requester import Requester
from homeserver.config.settings import PasswordSettings, Settings
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.lifecycle.creation import RoomRequest
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.streams.positions import PositionReserve
from homeserver.sync.sync_request import STATE_AFTER
from homeserver.wiring.accounts import Accounts
from homeserver.wiring.rate_limits import rate_limits_of
from homeserver.wiring.rooms import Rooms
from homeserver.wiring.sync import Sync
from tests.rooms.inbound.remote_events import RemoteEvents

SERVER = "example.org"


class SyncServer:
    """One server, and shortcuts for actions of users on it."""

    def __init__(self, db: Database, position: int) -> None:
        settings = Settings(server_name=SERVER, passwords=PasswordSettings(hash_cost="lowest"))
        key = SigningKey.from_seed("test", b"0" * 32)
        self.db = db
        self.log = Log(reactor, db.write_batch, position)
        self.accounts = Accounts(reactor, settings, key, db, self.log)
        limits = rate_limits_of(reactor, settings)
        self.rooms = Rooms(reactor, settings, key, db, self.log, self.accounts, limits)
        self.sync = Sync(reactor, settings, db, self.log, self.accounts, self.rooms)
        self.engine = self.sync.engine
        self.remote = RemoteEvents(self.rooms.registry)
        self._txn = 0

    @classmethod
    async def start(cls, db: Database) -> "SyncServer":
        """A server on this database; a second one continues where the first one stopped."""
        return cls(db, (await PositionReserve(db, reactor).first())[0])

    async def stop(self) -> None:
        await self.log.flush()
        self.sync.stop()

    async def user(self, name: str, device: str = "DEVICE") -> Requester:
        user_id = f"@{name}:{SERVER}"
        await self.db.run(insert_user, User(user_id, 0))
        return Requester(user_id, device)

    async def create_room(self, creator: Requester, **options: Any) -> str:
        options = {"version": "11", "preset": "public_chat"} | options
        return await self.rooms.creation.create(creator, RoomRequest(**options))

    async def say(self, sender: Requester, room_id: str, body: str) -> str:
        self._txn += 1
        content = {"msgtype": "m.text", "body": body}
        return await self.rooms.sending.send_message(
            sender, room_id, "m.room.message", content, f"t{self._txn}"
        )

    async def update(
        self,
        caller: Requester,
        since: str | None = None,
        wanted: dict[str, Any] | None = None,
        *,
        use_state_after: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """The immediate response of `/sync`."""
        text = None if wanted is None else msgspec.json.encode(wanted).decode()
        options["state_after"] = STATE_AFTER if use_state_after else None
        reader = await self.engine.reader(caller, filter_text=text, **options)
        position = None if since is None else int(since[1:])
        update = await self.engine.update(reader, position)
        answer: dict[str, Any] = msgspec.json.decode(update.encode())
        return answer
