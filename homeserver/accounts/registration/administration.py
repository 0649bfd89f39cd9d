"""Administration: the account functions of the command line, while the server runs or is stopped.

These functions write to the database without the objects of a running server. It notices: cached
tokens are looked up again every few minutes (`access_tokens.py`), and the rest of a deactivation is
done by the running server, or by the next one (`deactivation.py`).
"""

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.registration.first_profile import name_by_localpart
from homeserver.protocol.errors import (
    InvalidUsername,
    NotFound,
    ThreepidInUse,
    ThreepidNotFound,
    UserInUse,
)
from homeserver.protocol.identifiers import (
    InvalidIdentifier,
    check_localpart,
    is_compliant_user_id,
    parse_user_id,
    server_name_of,
)
from homeserver.storage.accounts.access_tokens import delete_access_tokens_of_user
from homeserver.storage.accounts.external_ids import delete_external_ids_of
from homeserver.storage.accounts.login_tokens import delete_login_tokens_of
from homeserver.storage.accounts.refresh_tokens import delete_refresh_tokens_of_user
from homeserver.storage.accounts.third_party_ids import (
    ThirdPartyId,
    delete_third_party_id,
    delete_third_party_ids_of,
    insert_third_party_id,
    third_party_ids_of,
)
from homeserver.storage.accounts.users import (
    User,
    all_users,
    deactivate_user,
    find_user,
    insert_user,
    set_password_hash,
)
from homeserver.storage.browser_sessions.browser_sessions import delete_browser_sessions_of
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.cleanup import delete_oauth_data_of


def local_user_id(name: str, server_name: str) -> str:
    """The user id for a localpart or a full user id.

    Raises `InvalidUsername` for anything else, and for remote users.
    """
    try:
        localpart, server = parse_user_id(name) if name.startswith("@") else (name, server_name)
        localpart = localpart.lower()
        check_localpart(localpart, server_name)
    except InvalidIdentifier as error:
        raise InvalidUsername(f"{name}: {error}") from None
    if server != server_name:
        raise InvalidUsername(f"{name} is not a user of {server_name}")
    return f"@{localpart}:{server_name}"


def existing_user_id(name: str, server_name: str) -> str:
    """The user id of an account that exists, for a localpart or a full user id.

    A full one is used as it is: users of application services may have capitals in their names.
    Raises `InvalidUsername`.
    """
    if name.startswith("@") and is_compliant_user_id(name) and server_name_of(name) == server_name:
        return name
    return local_user_id(name, server_name)


async def add_user(
    db: Database,
    passwords: Passwords,
    user_id: str,
    password: str,
    *,
    is_admin: bool = False,
    localpart_as_display_name: bool = True,
    now_ms: int,
) -> None:
    """Add an account. Raises `WeakPassword` and `UserInUse`."""
    passwords.check_strength(password)
    password_hash = await passwords.hash(password)
    user = User(user_id, now_ms, password_hash, is_admin=is_admin)
    await db.transaction(_add_user, user, localpart_as_display_name)


async def _add_user(db: Connection, user: User, is_named: bool) -> None:
    if not await insert_user(db, user):
        raise UserInUse(f"{user.user_id} exists already, or did once")
    if is_named:
        await name_by_localpart(db, user.user_id)


async def list_users(db: Database) -> list[User]:
    """All accounts, in the order of their user ids."""
    users: list[User] = []
    while page := await db.run(all_users, users[-1].user_id if users else ""):
        users += page
    return users


async def set_password(db: Database, passwords: Passwords, user_id: str, password: str) -> None:
    """Replace a password and log out all sessions. Raises `WeakPassword`, `NotFound`."""
    passwords.check_strength(password)
    await check_active(db, user_id)
    await db.transaction(_set_password, user_id, await passwords.hash(password))


async def add_third_party_id(
    db: Database, user_id: str, medium: str, address: str, *, now_ms: int
) -> None:
    """Add a canonical address to an account, as if it had been validated now.

    Raises `NotFound`, and `ThreepidInUse` where it belongs to another account.
    """
    await check_active(db, user_id)
    new = ThirdPartyId(medium, address, user_id, validated_ms=now_ms, added_ms=now_ms)
    if not await db.run(insert_third_party_id, new):
        raise ThreepidInUse(f"{address} belongs to another account")


async def remove_third_party_id(db: Database, user_id: str, medium: str, address: str) -> None:
    """Remove a canonical address from an account. Raises `ThreepidNotFound`."""
    if not await db.run(delete_third_party_id, user_id, medium, address):
        raise ThreepidNotFound(f"{user_id} does not have {address}")


async def list_third_party_ids(db: Database, user_id: str) -> list[ThirdPartyId]:
    """The addresses of a user, oldest first. Raises `NotFound`."""
    await check_active(db, user_id)
    return await db.run(third_party_ids_of, user_id)


async def deactivate(db: Database, user_id: str, *, erase: bool = False) -> None:
    """Deactivate an account permanently. Raises `NotFound`."""
    await check_active(db, user_id)
    await db.transaction(_deactivate, user_id, erase)


async def check_active(db: Database, user_id: str) -> None:
    """Raise `NotFound` for a user who does not exist, or was deactivated."""
    user = await db.run(find_user, user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    if user.is_deactivated:
        raise NotFound(f"{user_id} was deactivated")


async def _set_password(db: Connection, user_id: str, password_hash: str) -> None:
    await set_password_hash(db, user_id, password_hash)
    await _revoke_tokens(db, user_id)


async def _deactivate(db: Connection, user_id: str, erase: bool) -> None:
    await deactivate_user(db, user_id, erase)
    await delete_third_party_ids_of(db, user_id)
    await delete_external_ids_of(db, user_id)
    await _revoke_tokens(db, user_id)


async def _revoke_tokens(db: Connection, user_id: str) -> None:
    await delete_access_tokens_of_user(db, user_id)
    await delete_refresh_tokens_of_user(db, user_id)
    await delete_login_tokens_of(db, user_id)
    await delete_browser_sessions_of(db, user_id)
    await delete_oauth_data_of(db, user_id)
