"""The sessions of an account over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.whois import WhoIs
from homeserver.storage.accounts.devices import Device
from homeserver.web.routes import Route


class WhoIsApi:
    def __init__(self, whois: WhoIs) -> None:
        self._whois = whois

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/admin/whois/{user_id}"
        return [Route("GET", path, self.get_who_is)]

    async def get_who_is(self, caller: Requester, user_id: str) -> dict[str, Any]:
        """The devices of a user, each with one session and its last connection."""
        devices = await self._whois.devices_of(caller, user_id)
        return {
            "user_id": user_id,
            "devices": {
                device.device_id: {"sessions": [{"connections": _connections(device)}]}
                for device in devices
            },
        }


def _connections(device: Device) -> list[dict[str, Any]]:
    if device.last_seen_ms is None:
        return []
    return [
        {
            "ip": device.last_seen_ip or "",
            "last_seen": device.last_seen_ms,
            "user_agent": device.last_seen_agent or "",
        }
    ]
