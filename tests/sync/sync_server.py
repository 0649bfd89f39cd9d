"""A homeserver without its sockets: the domain objects on a real database, for sync tests."""

from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.config.sections.accounts import PasswordSettings
from homeserver.config.settings import Settings
from homeserver.protocol.errors import RemoteServerFailed
from homeserver.protocol.events import Event
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.history.history import BackfillPort
from homeserver.rooms.lifecycle.first_events import RoomRequest
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.batch import Batch
from homeserver.storage.database.database import Database
from homeserver.streams.counters import open_counters
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.sync.sync_request import STATE_AFTER
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.rate_limits import rate_limits_of
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.sync import Sync
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.support.logs import transcoding
from tests.support.no_federation import NoBackfill, NoKeys, no_remote
from tests.support.reactor import until

SERVER = "example.org"


class NoPolicySigner:
    """No policy server of a room responds."""

    async def sign(self, server: str, event: Event, *, is_waited_for: bool) -> bytes:
        raise RemoteServerFailed(f"{server} is not asked")


class SyncServer:
    """One server, and shortcuts for what users do on it.

    It asks other servers for nothing but the past of rooms, through `backfill`.
    """

    def __init__(self, db: Database, log: Log, backfill: BackfillPort) -> None:
        settings = Settings(server_name=SERVER, passwords=PasswordSettings(hash_cost="lowest"))
        key = SigningKey.from_seed("test", b"0" * 32)
        self.db = db
        self.log = log
        accounts = self.accounts = AccountCore(reactor, settings, key, db, log, Appservices())
        core = self.core = RoomCore(
            reactor, settings, key, db, log, accounts.erased_users, NoPolicySigner()
        )
        limits = rate_limits_of(reactor, settings)
        # Time stands still for them, so that no test has to stop their timers.
        self.readers_clock = Clock()
        readers = self.readers = DurableReaders(log, db, self.readers_clock)
        self.rooms = RoomServices(
            reactor, settings, db, log, readers, accounts, core, no_remote(backfill), limits
        )
        self.encryption = Encryption(reactor, settings, db, log, readers, accounts, core, NoKeys())
        self.sync = Sync(
            reactor, settings, db, log, readers, accounts, core, self.rooms, self.encryption
        )
        self.engine = self.sync.engine
        self.remote = RemoteEvents(core.registry, core.storage)
        self.is_dead = False
        self._txn = 0

    @classmethod
    async def start(
        cls, db: Database, backfill: BackfillPort | None = None, *, transcodes: bool = False
    ) -> "SyncServer":
        """A server on this database; a second one sees what the first one left behind.

        If it `transcodes`, the subscribers of its log see decoded entries.
        """

        async def write(batch: Batch) -> None:
            try:
                await db.write_batch(batch)
            finally:
                if server.is_dead:
                    await Deferred()  # neither success nor failure has an effect any more

        counters = await open_counters(db, reactor)
        transcode = transcoding(is_wanted=transcodes)
        log = Log(reactor, write, counters, transcode=transcode)
        server = cls(db, log, backfill or NoBackfill())
        await server.core.sticky_events.load()
        await server.readers.load()
        server.readers.start()
        return server

    async def stop(self) -> None:
        if self.is_dead:
            return
        await self.readers.stop()
        await self.log.flush()
        await self.sync.stop()

    def crash_after(self, batches: int) -> None:
        """Have the process die after so many more batches: no later one is written."""
        write, left = self.log._write, [batches]

        async def write_or_die(batch: Batch) -> None:
            if not left[0]:
                self.die()
                await Deferred()
            left[0] -= 1
            await write(batch)

        self.log._write = write_or_die

    def die(self) -> None:
        """End, as if killed: nothing that is in progress has an effect any more."""

        async def never(_: Batch) -> None:
            await Deferred()

        self.is_dead = True
        self.log._write = never
        self.sync.typing.stop()
        self.sync.tracker.stop()
        self.sync.remote_presence.stop()

    async def idle(self) -> None:
        """Wait until the readers of the log have nothing to do, or the process has died."""
        await until(lambda: self.is_dead or all(reader.is_idle for reader in self.readers))
        if not self.is_dead:
            await self.log.flush()

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
        """The response of `/sync`, without waiting."""
        text = None if wanted is None else msgspec.json.encode(wanted).decode()
        options["state_after"] = STATE_AFTER if use_state_after else None
        request = await self.engine.build_request(caller, filter_text=text, **options)
        token = None if since is None else parse_sync_token(since)
        update = await self.engine.update(request, token)
        response: dict[str, Any] = msgspec.json.decode(update.encode())
        return response
