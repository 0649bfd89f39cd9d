"""Account data over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData, check_client_may_set
from homeserver.client_api.accounts.own_data import check_own, check_room_id
from homeserver.protocol.errors import NotFound
from homeserver.web.routes import Route

USER = "/_matrix/client/v3/user/{user_id}"


class AccountDataApi:
    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    def routes(self) -> list[Route]:
        of_account = f"{USER}/account_data/{{event_type}}"
        of_room = f"{USER}/rooms/{{room_id}}/account_data/{{event_type}}"
        return [
            Route("GET", of_account, self.get_account_data),
            Route("PUT", of_account, self.set_account_data, limit="settings"),
            Route("GET", of_room, self.get_account_data_per_room),
            Route("PUT", of_room, self.set_account_data_per_room, limit="settings"),
        ]

    async def get_account_data(
        self, caller: Requester, user_id: str, event_type: str
    ) -> msgspec.Raw:
        """The caller's global account data of a type."""
        check_own(caller, user_id)
        return _found(await self._account_data.content(user_id, event_type))

    async def set_account_data(
        self,
        caller: Requester,
        user_id: str,
        event_type: str,
        body: dict[str, Any],
    ) -> None:
        """Set the caller's global account data of a type."""
        check_own(caller, user_id)
        check_client_may_set(event_type)
        await self._account_data.set(user_id, None, event_type, body)

    async def get_account_data_per_room(
        self,
        caller: Requester,
        user_id: str,
        room_id: str,
        event_type: str,
    ) -> msgspec.Raw:
        """The caller's account data of a type for a room."""
        check_own(caller, user_id)
        check_room_id(room_id)
        return _found(await self._account_data.content(user_id, event_type, room_id))

    async def set_account_data_per_room(
        self,
        caller: Requester,
        user_id: str,
        room_id: str,
        event_type: str,
        body: dict[str, Any],
    ) -> None:
        """Set the caller's account data of a type for a room."""
        check_own(caller, user_id)
        check_room_id(room_id)
        check_client_may_set(event_type)
        await self._account_data.set(user_id, room_id, event_type, body)


def _found(content: bytes | None) -> msgspec.Raw:
    if content is None:
        raise NotFound("Account data not found")
    return msgspec.Raw(content)
