"""The own users of application services, which exist without being registered by a request."""

from collections.abc import Sequence

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.database import Connection, Database


async def register_senders(db: Database, clock: Clock, appservices: Sequence[Appservice]) -> None:
    """Create the accounts of those senders that have none yet."""
    if appservices:
        await db.transaction(_insert_all, now_ms(clock), appservices)


async def _insert_all(db: Connection, now: int, appservices: Sequence[Appservice]) -> None:
    for each in appservices:
        await insert_user(db, User(each.sender, created_ms=now, appservice=each.id))
