"""Invite permission: whether local users can be invited, and by whom.

A user who blocks an inviter by the account data `m.invite_permission_config` is not invited: the
invite is refused before there is an event. The invited user's own server refuses, so invites to
remote users pass here. Invites that are ignored pass, too; sync and push leave them out
(`AccountData.invite_action`). A user whom an application service would create is created first.

Spec: https://spec.matrix.org/v1.19/client-server-api/#invite-permission
"""

from homeserver.accounts.appservices.provisioning import Party, Provision, ask_nobody
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.protocol.errors import InviteBlocked
from homeserver.protocol.proposals.invite_filter import InviteAction


class InvitePermission:
    """Checks whether local users accept invites."""

    def __init__(
        self, account_data: AccountData, server_name: str, provision: Provision = ask_nobody
    ) -> None:
        self._provision = provision
        self._account_data = account_data
        self._server_name = server_name

    async def check(self, user_id: str, inviter: str, party: Party) -> None:
        """Raise `InviteBlocked` where a local user accepts no invites of the inviter.

        `party` requests the invite, which may be the inviter's server. Raises what `Provision`
        raises, too.
        """
        await self._provision(user_id, party)
        if user_id.partition(":")[2] != self._server_name:
            return
        if await self._account_data.invite_action(user_id, inviter) is InviteAction.BLOCK:
            raise InviteBlocked(f"{user_id} does not accept invites of {inviter}")
