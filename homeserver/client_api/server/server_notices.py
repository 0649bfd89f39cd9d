"""Sending server notices over the API, in the form that existing tools use.

Not part of the specification, which leaves it to the server: the path and the form of the request
are those of Synapse's admin API.
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.moderation.server_notices import ServerNotices
from homeserver.protocol.errors import BadJson
from homeserver.web.routes import Auth, Route


class SendNotice(msgspec.Struct):
    """The recipient, and the content of the message."""

    user_id: str
    content: dict[str, Any]


class ServerNoticesApi:
    def __init__(self, notices: ServerNotices) -> None:
        self._notices = notices

    def routes(self) -> list[Route]:
        path = "/_synapse/admin/v1/send_server_notice"
        return [
            Route("POST", path, self.send_server_notice, Auth.ADMIN),
            Route("PUT", f"{path}/{{txn_id}}", self.send_server_notice, Auth.ADMIN),
        ]

    async def send_server_notice(
        self, caller: Requester, body: SendNotice, txn_id: str | None = None
    ) -> dict[str, str]:
        """Send a notice to a user, once for each transaction id of the administrator's device."""
        if not isinstance(body.content.get("body"), str):
            raise BadJson("A notice has a body")
        return {"event_id": await self._notices.send(caller, body.user_id, body.content, txn_id)}
