"""The deactivation of accounts.

First all means of logging in are removed; after that it cannot be stopped. The rest, such as
leaving rooms, is done by the callables in `on_deactivated`. The database records that it is
unfinished until it is done, so a crash or a failure only delays it, and the command line can start
it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.profiles import LocalProfiles
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.errors import NotFound
from homeserver.storage.accounts.external_ids import delete_external_ids_of
from homeserver.storage.accounts.login_tokens import delete_login_tokens_of
from homeserver.storage.accounts.openid_tokens import delete_openid_tokens_of
from homeserver.storage.accounts.third_party_ids import delete_third_party_ids_of
from homeserver.storage.accounts.users import (
    User,
    deactivate_user,
    end_deactivation,
    find_user,
    unfinished_deactivations,
)
from homeserver.storage.browser_sessions.browser_sessions import delete_browser_sessions_of
from homeserver.storage.browser_sessions.cross_signing_resets import delete_cross_signing_reset
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.cleanup import delete_oauth_grants_of

FINISH_SECONDS = 60.0

Deactivated = Callable[[str, bool], Awaitable[None]]
log = Logger()


class Deactivation:
    """Deactivates accounts. The callers decide who may do so.

    Each callable in `on_deactivated` gets the user id, and whether the user wants to be erased. It
    may be called again for the same user. `start` this, and `stop` it before the database closes.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        sessions: LoginSessions,
        profiles: LocalProfiles,
        account_data: AccountData,
        on_deactivated: Sequence[Deactivated],
    ) -> None:
        self._on_deactivated = on_deactivated
        self._db = db
        self._sessions = sessions
        self._profiles = profiles
        self._account_data = account_data
        self._in_progress: set[str] = set()
        self._finishing = PeriodicTask(
            clock, FINISH_SECONDS, self.finish_all, name="finishing deactivations"
        )

    def start(self) -> None:
        """Begin to finish unfinished deactivations, every minute."""
        self._finishing.start(now=True)

    def stop(self) -> Deferred[None]:
        """Begin no more; fires when the current run has ended."""
        return self._finishing.stop()

    async def deactivate(self, user_id: str, *, erase: bool) -> None:
        """Deactivate an account permanently. Raises `NotFound`."""
        if await self._db.run(find_user, user_id) is None:
            raise NotFound("No such user")
        await self._db.transaction(_deactivate, user_id, erase)
        await self._finish(user_id, erase)

    async def finish_all(self) -> None:
        """Finish all unfinished deactivations."""
        try:
            users: list[User] = await self._db.run(unfinished_deactivations)
        except Exception as error:
            log.warn("could not look for unfinished deactivations: {error}", error=error)
            return
        for user in users:
            await self._finish(user.user_id, user.is_erased)

    async def _finish(self, user_id: str, erase: bool) -> None:
        if user_id in self._in_progress:
            return
        self._in_progress.add(user_id)
        try:
            await self._sessions.close_all(user_id)
            for deactivated in self._on_deactivated:
                await deactivated(user_id, erase)
            await self._profiles.remove_all(user_id)
            if erase:
                await self._account_data.erase(user_id)
            await self._db.run(end_deactivation, user_id)
        except Exception:
            # The account is deactivated in any case; the rest is retried.
            log.failure("could not finish the deactivation of {user_id}", user_id=user_id)
        finally:
            self._in_progress.discard(user_id)


async def _deactivate(db: Connection, user_id: str, erase: bool) -> None:
    await deactivate_user(db, user_id, erase)
    await delete_login_tokens_of(db, user_id)
    await delete_openid_tokens_of(db, user_id)
    await delete_browser_sessions_of(db, user_id)
    await delete_oauth_grants_of(db, user_id)
    await delete_cross_signing_reset(db, user_id)
    await delete_third_party_ids_of(db, user_id)
    await delete_external_ids_of(db, user_id)
