"""Invite permission: whether local users can be invited, and users who accept no invites at all.

A user who sets `default_action` to `block` in the account data `m.invite_permission_config` cannot
be invited: the invite is refused before there is an event. The invited user's own server refuses,
so invites to remote users pass here. Any value but `block` blocks nothing. A user whom an
application service would create is created first.

Spec: https://spec.matrix.org/v1.19/client-server-api/#invite-permission
"""

import msgspec

from homeserver.accounts.appservices.provisioning import Party, Provision, ask_nobody
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.protocol.errors import InviteBlocked
from homeserver.protocol.event_types import INVITE_PERMISSION_CONFIG

BLOCK = "block"


class InvitePermission:
    """Checks whether local users accept invites."""

    def __init__(
        self, account_data: AccountData, server_name: str, provision: Provision = ask_nobody
    ) -> None:
        self._provision = provision
        self._account_data = account_data
        self._server_name = server_name

    async def check(self, user_id: str, party: Party) -> None:
        """Raise `InviteBlocked` where a local user accepts no invites; `party` is the inviter.

        Raises what `Provision` raises, too.
        """
        await self._provision(user_id, party)
        if await self.blocks(user_id):
            raise InviteBlocked(f"{user_id} does not accept invites")

    async def blocks(self, user_id: str) -> bool:
        """Whether a local user accepts no invites."""
        if user_id.partition(":")[2] != self._server_name:
            return False
        content = await self._account_data.content(user_id, INVITE_PERMISSION_CONFIG)
        return content is not None and is_blocking(content)


def is_blocking(content: bytes) -> bool:
    """Whether `m.invite_permission_config` with this content, which is JSON, blocks invites."""
    permission = msgspec.json.decode(content)
    return isinstance(permission, dict) and permission.get("default_action") == BLOCK
