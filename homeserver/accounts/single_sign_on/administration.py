"""Administration of the identities of accounts, without a running server."""

from homeserver.accounts.registration.administration import check_active
from homeserver.protocol.errors import NotFound, UserInUse
from homeserver.storage.accounts.external_ids import (
    ExternalId,
    delete_external_id,
    external_ids_of,
    insert_external_id,
)
from homeserver.storage.database.database import Database


async def link_identity(
    db: Database, user_id: str, provider: str, subject: str, *, now_ms: int
) -> None:
    """Have a user sign in with an identity.

    Raises `NotFound`, and `UserInUse` if the identity is linked with an account already.
    """
    await check_active(db, user_id)
    if not await db.run(insert_external_id, ExternalId(provider, subject, user_id, now_ms)):
        raise UserInUse("The identity is linked with an account already")


async def unlink_identity(db: Database, user_id: str, provider: str, subject: str) -> None:
    """Have a user no longer sign in with an identity. Raises `NotFound`."""
    if not await db.run(delete_external_id, user_id, provider, subject):
        raise NotFound(f"{user_id} does not have this identity")


async def list_identities(db: Database, user_id: str) -> list[ExternalId]:
    """The identities of a user, oldest first. Raises `NotFound`."""
    await check_active(db, user_id)
    return await db.run(external_ids_of, user_id)
