"""The initial profile of a new account.

Other implementations name an account by its localpart until the user chooses a name, and clients
rely on it: without a display name they show the full user id.
"""

import msgspec

from homeserver.accounts.user_data.profiles import DISPLAYNAME
from homeserver.protocol.identifiers import parse_user_id
from homeserver.storage.accounts.profiles import insert_profile_field
from homeserver.storage.database.database import Connection


async def name_by_localpart(db: Connection, user_id: str) -> None:
    """Set the localpart of a new account as its display name, unless it has one."""
    await set_first_name(db, user_id, parse_user_id(user_id).localpart)


async def set_first_name(db: Connection, user_id: str, name: str) -> None:
    """Set the display name of a new account, unless it has one."""
    await insert_profile_field(db, user_id, DISPLAYNAME, msgspec.json.encode(name))
