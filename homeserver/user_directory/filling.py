"""Fills the user directory with what no log entry tells of: new accounts, and old rooms.

After an upgrade all accounts and rooms are missing; they are indexed in the background, some at a
time, and a restart goes on with those that are left. Later there are only new accounts, a few
seconds after they were made.
"""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.retry_pauses import Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.user_directory.accounts import delete_accounts, waiting_accounts
from homeserver.storage.user_directory.rooms import rooms_to_index
from homeserver.user_directory.index import CHUNK, UserDirectoryIndex

INTERVAL_SECONDS = 2.0
ROOMS_PAGE = 500
log = Logger()


class UserDirectoryFilling:
    """A background task. `start` this, and `stop` it before the database closes."""

    def __init__(self, db: Database, clock: IReactorTime, index: UserDirectoryIndex) -> None:
        self._db = db
        self._index = index
        self._after: int | None = 0  # the last room that was looked at; `None`: all were
        self._is_stopped = False
        self._task = PeriodicTask(
            clock, INTERVAL_SECONDS, self._run, name="filling the user directory"
        )

    def start(self) -> None:
        """Begin."""
        self._task.start(now=True)

    async def stop(self) -> None:
        """Begin nothing more; returns when the present step has ended."""
        self._is_stopped = True
        self._index.stop()
        await self._task.stop()

    async def _run(self) -> None:
        try:
            while not self._is_stopped and (
                await self._index_accounts() or await self._index_rooms()
            ):
                pass
        except Stopped:
            pass
        except (Unavailable, DatabaseUnavailable) as error:
            log.info("the filling of the user directory waits: {error}", error=error)

    async def _index_accounts(self) -> bool:
        """Index some accounts; returns whether there were any."""
        accounts = await self._db.run(waiting_accounts, CHUNK)
        if accounts:
            await self._index.update_accounts(accounts)
            await self._db.run(delete_accounts, [account.number for account in accounts])
        return bool(accounts)

    async def _index_rooms(self) -> bool:
        """Index the next rooms that are not complete; returns whether there may be more."""
        if self._after is None:
            return False
        rooms, last = await self._db.run(rooms_to_index, self._after, ROOMS_PAGE)
        for room_nid in rooms:
            if self._is_stopped:
                return False
            await self._index_room(room_nid)
        self._after = last
        return last is not None

    async def _index_room(self, room_nid: int) -> None:
        try:
            await self._index.update_room(room_nid)
        except (Unavailable, DatabaseUnavailable, Stopped):
            raise
        except Exception:
            # It must not keep all later rooms from being found; the next start tries again.
            log.failure("could not index the members of the room with nid {room}", room=room_nid)
