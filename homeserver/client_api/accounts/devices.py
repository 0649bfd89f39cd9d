"""Devices over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
)
from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.login_sessions import MAX_DEVICES, LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.storage.accounts.devices import Device
from homeserver.web.routes import Auth, Response, Route

CLIENT = "/_matrix/client/v3"


class UpdateDevice(msgspec.Struct):
    display_name: str | None = None


class DeleteDevices(Confirmable):
    devices: Annotated[list[str], msgspec.Meta(max_length=MAX_DEVICES)]


class DevicesApi:
    def __init__(self, devices: Devices, sessions: LoginSessions, uia: UserInteractiveAuth) -> None:
        self._devices = devices
        self._sessions = sessions
        self._uia = uia

    def routes(self) -> list[Route]:
        one = f"{CLIENT}/devices/{{device_id}}"
        return [
            Route("GET", f"{CLIENT}/devices", self.get_devices, auth=Auth.GUEST),
            Route("GET", one, self.get_device, auth=Auth.GUEST),
            Route("PUT", one, self.update_device, auth=Auth.GUEST, limit="settings"),
            Route("DELETE", one, self.delete_device, limit="login"),
            Route("POST", f"{CLIENT}/delete_devices", self.delete_devices, limit="login"),
        ]

    async def get_devices(self, caller: Requester) -> dict[str, Any]:
        """The caller's devices."""
        devices = await self._devices.all_of(caller.user_id)
        return {"devices": [_described(device) for device in devices]}

    async def get_device(self, caller: Requester, device_id: str) -> dict[str, Any]:
        """One of the caller's devices."""
        return _described(await self._devices.get(caller.user_id, device_id))

    async def update_device(
        self, caller: Requester, device_id: str, body: UpdateDevice
    ) -> Response | None:
        """Rename one of the caller's devices; application services also create one.

        Spec: https://spec.matrix.org/v1.19/application-service-api/#creating-devices
        """
        if caller.appservice is not None and await self._sessions.add_device(
            caller.user_id, device_id, body.display_name
        ):
            return Response(HTTPStatus.CREATED, {})
        if body.display_name is None:
            await self._devices.get(caller.user_id, device_id)
        else:
            await self._devices.rename(caller.user_id, device_id, body.display_name)
        return None

    async def delete_device(self, caller: Requester, device_id: str, body: Confirmable) -> None:
        """Remove one of the caller's devices, and log it out."""
        await self._uia.confirm(f"deleteDevice {device_id}", caller, body)
        await self._devices.remove(caller.user_id, [device_id])

    async def delete_devices(self, caller: Requester, body: DeleteDevices) -> None:
        """Remove several of the caller's devices, and log them out."""
        confirmed = await self._uia.confirm("deleteDevices", caller, body)
        await self._devices.remove(caller.user_id, confirmed.devices)


def _described(device: Device) -> dict[str, Any]:
    # Members without a value are null, since clients require them to be present.
    return {
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ms,
    }
